//! Address pools, node blocks and address leases, with no idea of time or disks.
