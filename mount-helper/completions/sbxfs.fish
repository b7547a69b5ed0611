# Completion of sbxfs for fish. tests/unit/completions_test.cc compares the
# names with the program's own.

function __sbxfs_options
    # Those that were said before stay, and the next is completed.
    set -l word (commandline -ct | string replace -r '^-o' '')
    set -l said (string replace -rf '[^,]*$' '' -- $word)
    switch (string replace -r '.*,' '' -- $word)
        case 'loglevel=*'
            printf '%s\n' "$said"loglevel={trace,debug,info,warning,error,critical,off}
        case 'log=*'
            printf '%s\n' "$said"log={stderr,syslog,journal}
        case 'gid=*' 'group=*'
            set -l name (string replace -r "=.*" "" -- (string replace -r ".*," "" -- $word))
            printf '%s\n' "$said$name="(__fish_complete_groups | string split -f 1 \t)
        case '*'
            printf '%s\n' "$said"{allow_other,allow_root,all,async,atime} \
                "$said"{auto_unmount,cold,context=,debug,defcontext=,dirsync} \
                "$said"{disk_pool=,exec,fscontext=,gid=,group=,hosts=,insecure_tcp,log=} \
                "$said"{loglevel=,max_read=,noatime,nodev,noexec,nosuid,pool=} \
                "$said"{ro,rootcontext=,sloppy,ssh_config=,start} \
                "$said"{start_timeout=,stop_timeout=,sync,trash=,user_disk=} \
                "$said"{user_jobs=,user_memory=,user_ports=,user_sandboxes=}
    end
end

complete -c sbxfs -f
complete -c sbxfs -s h -l help -d 'Print a summary'
complete -c sbxfs -s V -l version -d 'Print the version'
complete -c sbxfs -l check -d 'Look at the arguments, mount nothing'
complete -c sbxfs -l connect -d 'Carry ssh to the sandbox DIR/NAME'
complete -c sbxfs -l only-mount -d 'Mount, for the daemon of the same unit'
complete -c sbxfs -l status -d 'Show what is mounted, and the sandboxes'
complete -c sbxfs -s f -d 'Stay in the foreground'
complete -c sbxfs -s d -l debug -d 'The same, and log all that happens'
complete -c sbxfs -s o -x -d Options -a '(__sbxfs_options)'
complete -c sbxfs -n 'not string match -q "*:*" -- (commandline -ct)' -a '(__fish_complete_directories)'
complete -c sbxfs -a 'qemu:///session qemu:///system qemu+ssh:// lima+ssh:// test:///default' -d Hypervisor
