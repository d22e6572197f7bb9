# The newest image of a target, out of osimager's registry file. No provider is needed, so nothing is downloaded.

terraform {
  required_version = ">= 1.3" # OpenTofu 1.6 is one of these
}

locals {
  arch_names = { amd64 = "x86_64", x64 = "x86_64", arm64 = "aarch64", i686 = "i386", x86 = "i386" }
  arch       = lookup(local.arch_names, var.arch, var.arch)

  # A registry that is not there holds no image; one that is damaged is an error of yamldecode's.
  file   = pathexpand(var.registry)
  images = yamldecode(fileexists(local.file) ? file(local.file) : "images: {}").images

  # The target as it was given, and with each architecture after it: short, or with its platform and location.
  names = concat([var.target], [for arch in ["x86_64", "aarch64", "i386"] : "${var.target}-${arch}"])

  matching = {
    for id, image in local.images : id => image
    if(contains(local.names, image.target) || contains(local.names, reverse(split("/", image.target))[0]))
    && image.profile == var.profile
    && (local.arch == "" || image.arch == local.arch)
    && (var.firmware == "" || image.firmware == var.firmware)
    && (var.label == "" || image.label == var.label)
    && contains(var.statuses, image.status)
  }

  arches = distinct([for image in values(local.matching) : image.arch])
  # Times are all written alike, so they sort as text.
  newest = try(reverse(sort([for id, image in local.matching : "${image.created} ${id}"]))[0], "")
  id     = try(split(" ", local.newest)[1], "")
  image  = try(local.matching[local.id], null)

  wanted = join(" ", compact([var.target, var.profile, var.arch, var.firmware, var.label]))
}
