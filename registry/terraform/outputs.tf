# A failed precondition stops the plan, so it stands once; the other outputs are never used where it failed.

output "image" {
  description = "All that the registry says of the image."
  value       = local.image

  precondition {
    condition     = local.image != null
    error_message = "No image of '${local.wanted}' is in ${local.file}: run `osimager build ${var.target}`."
  }

  precondition {
    condition     = length(local.arches) <= 1
    error_message = "There are images of '${local.wanted}' for ${join(" and ", local.arches)}: set arch."
  }

  precondition {
    condition     = try(fileexists(local.image.path), true)
    error_message = "The image ${local.id} is registered, but its file ${try(local.image.path, "")} is gone."
  }
}

output "id" {
  description = "The image's id in the registry."
  value       = local.id
}

output "path" {
  description = "The absolute path of the image's qcow2 file."
  value       = try(local.image.path, null)
}

output "sha256" {
  description = "The SHA-256 of the file, in hexadecimal."
  value       = try(local.image.sha256, null)
}
