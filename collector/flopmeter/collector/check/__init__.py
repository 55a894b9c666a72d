"""fsck: everything derived again from the stored records."""
