# Completion of sandbox for fish: its switches and the sandboxes there are, then
# a directory or a command.

function __sandbox_names
    sandbox -l 2>/dev/null | awk 'NR > 1 { print $1 "\t" $2 }'
end

complete -c sandbox -f
complete -c sandbox -n __fish_use_subcommand -s h -d 'Print a summary'
complete -c sandbox -n __fish_use_subcommand -s l -d 'List the sandboxes'
complete -c sandbox -n __fish_use_subcommand -a '(__sandbox_names)'
complete -c sandbox -n 'not __fish_use_subcommand' -a '(__fish_complete_directories)'
complete -c sandbox -n 'not __fish_use_subcommand' -a '(__fish_complete_command)'
