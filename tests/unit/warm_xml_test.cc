#include "backend/warm_xml.h"

#include <gmock/gmock.h>

#include <string>

#include "backend/domain_xml.h"
#include "backend/memory_stream.h"
#include "backend/user_network.h"
#include "backend/util/error.h"
#include "backend/xml.h"

namespace sbxfs {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kTemplateUuid[] = "00000000-0000-5000-8000-000000000001";
constexpr char kUuid[] = "11111111-1111-4111-8111-111111111111";

DomainInput Input() {
  DomainInput input;
  input.name = ".sbxfs-template-00000000";
  input.uuid = kTemplateUuid;
  input.cpus = 1;
  input.memory = 512 << 20;
  input.metadata.pool = "sbxfs";
  input.disk_volume = std::string(kTemplateUuid) + ".disk.1";
  input.seed_volume = std::string(kTemplateUuid) + ".seed.1";
  input.mac = MacFor(kTemplateUuid);
  input.is_template = true;
  return input;
}

// As libvirt keeps it with a guest that runs.
std::string Template() {
  std::string xml = DomainXml(Input());
  const std::string channel = "<channel type=\"unix\">";
  xml.insert(xml.find(channel) + channel.size(),
             "<source mode='bind' path='/run/agent'/>");
  xml.insert(xml.find("</domain>"), "<seclabel type='dynamic'/>");
  return WithWarmNote(xml, {.image = "debian-12",
                            .hypervisor = "QEMU 7.2.22 & more",
                            .documents = "d",
                            .scripts = "s",
                            .networks = "networkd",
                            .image_stamp = "1 2",
                            .disk = Input().disk_volume,
                            .disk_stamp = "3 4",
                            .memory = "m",
                            .memory_stamp = "5 6"});
}

WarmInput Other() {
  WarmInput input;
  input.name = "box";
  input.uuid = kUuid;
  input.description = "a <box>";
  input.metadata.pool = "sbxfs";
  input.metadata.disk_volume = std::string(kUuid) + ".disk.1";
  input.metadata.seed_volume = std::string(kUuid) + ".seed";
  input.metadata.user = "joe";
  input.run.becoming = true;
  input.console_path = "/pool/box.console";
  input.mac = MacFor(kUuid);
  input.forwards = {*ParseHostfwd("tcp:127.0.0.1:2200-:22")};
  input.memory_path = "/pool/m";
  input.memory = 512 << 20;
  return input;
}

TEST(WarmXml, ATemplateIsNobodysAndHasNoBalloon) {
  const DomainFacts facts = ParseDomain(Template());
  EXPECT_FALSE(facts.metadata.has_value());
  EXPECT_EQ(XmlText(Template(), "//memballoon/@model"), "none");
  const auto note = ParseWarmNote(Template());
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ(note->hypervisor, "QEMU 7.2.22 & more");
  EXPECT_EQ(note->memory_stamp, "5 6");
  EXPECT_EQ(note->scripts, "s");
  EXPECT_EQ(note->networks, "networkd");
  EXPECT_EQ(WarmMac(Template()), MacFor(kTemplateUuid));
  EXPECT_FALSE(ParseWarmNote(DomainXml(Input())).has_value());
  EXPECT_FALSE(ParseWarmNote("<nonsense").has_value());
}

TEST(WarmXml, WhoGoesOnFromItIsAnotherDomain) {
  const std::string xml = WarmDomainXml(Template(), Other());
  const DomainFacts facts = ParseDomain(xml);
  EXPECT_EQ(facts.name, "box");
  EXPECT_EQ(facts.uuid, kUuid);
  EXPECT_EQ(facts.description, "a <box>");
  EXPECT_EQ(facts.disk, std::string(kUuid) + ".disk.1");
  EXPECT_EQ(facts.seed, std::string(kUuid) + ".seed");
  EXPECT_EQ(facts.mac, MacFor(kUuid));
  EXPECT_EQ(facts.forwards, Other().forwards);
  ASSERT_TRUE(facts.metadata.has_value());
  EXPECT_EQ(facts.metadata->user, "joe");
  EXPECT_TRUE(ParseRun(xml).becoming);
  // What its boot.sh has to do is found by the template's.
  ASSERT_TRUE(ParseWarmNote(xml).has_value());
  EXPECT_EQ(ParseWarmNote(xml)->documents, "d");
  EXPECT_EQ(XmlText(xml, "//serial/log/@file"), "/pool/box.console");
  EXPECT_THAT(xml, Not(HasSubstr("/run/agent")));
  EXPECT_THAT(xml, Not(HasSubstr("seclabel")));
  EXPECT_THAT(xml, HasSubstr("-object"));
  EXPECT_THAT(xml, HasSubstr("memory-backend-file,id=warm.ram,size=536870912,"
                             "mem-path=/pool/m,share=off\""));
  EXPECT_THAT(xml, HasSubstr("memory-backend=warm.ram"));
  // Where its devices are on the bus is the template's.
  EXPECT_EQ(ParseDomain(Template()).disk_targets, facts.disk_targets);
}

TEST(WarmXml, WhatGuestsMemoryAnotherCanGoOnFrom) {
  DomainInput input = Input();
  EXPECT_EQ(WhyNoFork(DomainXml(input)), "");
  EXPECT_EQ(WhyNoFork(Template()), "");
  input.max_memory = 2 * input.memory;
  EXPECT_THAT(WhyNoFork(DomainXml(input)), HasSubstr("balloon"));
  input = Input();
  input.uefi = true;
  EXPECT_THAT(WhyNoFork(DomainXml(input)), HasSubstr("UEFI"));
  input = Input();
  input.extra_disks = {"data"};
  input.disk_place.pool = "sbxfs";
  input.disk_place.format = "qcow2";
  EXPECT_THAT(WhyNoFork(DomainXml(input)), HasSubstr("additional disks"));
  input = Input();
  input.shared_memory = true;
  EXPECT_THAT(WhyNoFork(DomainXml(input)), HasSubstr("shared"));
  EXPECT_THROW((void)WhyNoFork("<nonsense"), Error);
}

TEST(WarmXml, WhoHasItsMemoryNeedsNoTemplate) {
  const std::string xml = WarmDomainXml(Template(), Other());
  const std::string own = WithOwnMemory(xml);
  EXPECT_THAT(own, Not(HasSubstr("mem-path")));
  EXPECT_THAT(own,
              HasSubstr("\"memory-backend-ram,id=warm.ram,size=536870912\""));
  // It has to fit where the other was.
  EXPECT_LT(own.size(), xml.size());
  EXPECT_EQ(ParseDomain(own).forwards, Other().forwards);
  EXPECT_EQ(WithOwnMemory(own), own);
  EXPECT_EQ(WithOwnMemory(Template()), Template());
}

TEST(WarmXml, ANewQemuNeedNotBeAbleToWriteTheTemplate) {
  WarmInput input = Other();
  input.read_only = true;
  EXPECT_THAT(WarmDomainXml(Template(), input),
              HasSubstr("share=off,readonly=on,rom=off"));
}

}  // namespace
}  // namespace sbxfs
