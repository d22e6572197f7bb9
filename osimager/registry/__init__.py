"""Layer 3: the record of images that OpenTofu, Terraform and Ansible read."""
