#include "fs/status.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

namespace sbxfs {
namespace {

const SbxfsMount kMount = {"/m", "qemu:///system", 0};
constexpr char kList[] =
    "NAME  STATE    IP\nbox   running  10.0.0.7\nold   stopped  -\n";

Sight::Hypervisor Connected(const std::string& name) {
  return {name, "qemu:///" + name + "\n",
          "connected since 2026-11-30T06:00:00.000Z\nnote: tcg: slow\n"};
}
Sight::Hypervisor Disconnected(const std::string& name) {
  return {name, "qemu:///" + name + "\n",
          "disconnected since 2026-11-30T06:00:00.000Z: it went\n"};
}

TEST(Status, AnswersAndIsConnected) {
  const Sight sight{false, 0, {Connected("")}, kList};
  EXPECT_EQ(SightText(kMount, sight),
            "/m: qemu:///, connected since 2026-11-30T06:00:00.000Z\n"
            "  NAME  STATE    IP\n"
            "  box   running  10.0.0.7\n"
            "  old   stopped  -\n");
  EXPECT_EQ(StatusOfSight(sight), 0);
}

TEST(Status, NoSandboxes) {
  const Sight sight{false, 0, {Connected("")}, "NAME  STATE  IP\n"};
  EXPECT_EQ(SightText(kMount, sight),
            "/m: qemu:///, connected since 2026-11-30T06:00:00.000Z\n"
            "  no sandboxes; mkdir '/m/box' makes one\n");
  EXPECT_EQ(StatusOfSight(sight), 0);
}

TEST(Status, OneOfSeveralIsDisconnected) {
  const Sight sight{false, 0, {Connected("near"), Disconnected("far")}, kList};
  EXPECT_EQ(SightText({"/all", "/etc/hypervisors", 0}, sight),
            "/all: /etc/hypervisors\n"
            "  near: qemu:///near, connected since "
            "2026-11-30T06:00:00.000Z\n"
            "  far: qemu:///far, disconnected since "
            "2026-11-30T06:00:00.000Z: it went\n"
            "  NAME  STATE    IP\n"
            "  box   running  10.0.0.7\n"
            "  old   stopped  -\n");
  EXPECT_EQ(StatusOfSight(sight), 16);
}

TEST(Status, WhatIsNoTree) {
  Sight sight;
  sight.silent = true;
  EXPECT_EQ(SightText(kMount, sight),
            "/m: qemu:///system, it does not answer: its sbxfs hangs or was "
            "stopped; see its log, or end it by fusermount3 -uz '/m' and mount "
            "again; guests run on\n");
  EXPECT_EQ(StatusOfSight(sight), 32);
  sight = {};
  sight.error = ENOTCONN;
  EXPECT_EQ(SightText(kMount, sight),
            "/m: qemu:///system, it is dead: its sbxfs was killed; "
            "fusermount3 -u '/m', then mount again; guests run on\n");
  EXPECT_EQ(StatusOfSight(sight), 32);
  sight.error = EACCES;
  EXPECT_EQ(SightText({"/m", "u:///", geteuid() + 4000000}, sight),
            "/m: u:///, it is " + std::to_string(geteuid() + 4000000) +
                "'s, and not for you to look into\n");
  EXPECT_EQ(SightText({"/m", "u:///", geteuid()}, sight),
            "/m: u:///, Permission denied\n");
  EXPECT_EQ(StatusOfSight(sight), 32);
}

TEST(Status, GoesThroughAPipe) {
  const Sight sights[] = {
      {false, 0, {Connected("")}, kList},
      {false, 0, {Connected("near"), Disconnected("far")}, ""},
      {false, ENOTCONN, {}, ""}};
  for (const Sight& sight : sights) {
    const std::string text = PackSight(sight);
    EXPECT_EQ(UnpackSight(text), sight);
    // Cut off anywhere between words it is no answer.
    for (std::size_t i = 0; i < text.size(); ++i) {
      const Sight part = UnpackSight(std::string_view(text).substr(0, i));
      EXPECT_TRUE(part.silent || part.hypervisors.size() == 1) << i;
    }
  }
}

TEST(Status, FindsTheMountAround) {
  const std::vector<SbxfsMount> mounts = {
      {"/s", "a", {}}, {"/s/x/y", "b", {}}, {"/sandboxes", "c", {}}};
  const auto at = [&](std::string_view path) {
    const SbxfsMount* mount = MountAround(mounts, path);
    return mount == nullptr ? "" : mount->source;
  };
  EXPECT_EQ(at("/s"), "a");
  EXPECT_EQ(at("/s/"), "a");
  EXPECT_EQ(at("/s/box/cpus"), "a");
  EXPECT_EQ(at("/s/x/y/box"), "b");
  EXPECT_EQ(at("/sandboxes/box"), "c");
  EXPECT_EQ(at("/sand"), "");
  EXPECT_EQ(at(""), "");
}

}  // namespace
}  // namespace sbxfs
