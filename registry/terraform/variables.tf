variable "registry" {
  description = "The registry file of osimager."
  type        = string
  default     = "~/.local/share/osimager/registry.yml"
}

variable "target" {
  description = "The target, short or long: debian-12, debian-12-x86_64, qemu/local/debian-12-x86_64."
  type        = string
}

variable "profile" {
  description = "The profile that the image was built with; empty: none."
  type        = string
  default     = ""
}

variable "arch" {
  description = "The architecture (arm64 and amd64 too); may be left out where there are images of one only."
  type        = string
  default     = ""
}

variable "firmware" {
  description = "bios or uefi; empty: any."
  type        = string
  default     = ""

  validation {
    condition     = contains(["", "bios", "uefi"], var.firmware)
    error_message = "The firmware is bios or uefi."
  }
}

variable "label" {
  description = "The label that the image carries; empty: any."
  type        = string
  default     = ""
}

variable "statuses" {
  description = "How far the image may have come; leave built out to use verified images only."
  type        = list(string)
  default     = ["built", "verified", "published"]
}
