//! Address pools, node blocks and address leases, with no idea of time or disks.
//!
//! [`PoolAllocator`] cuts a pool into one block per node and family (the operator's side);
//! [`NodeAddresses`] leases single addresses of a node's blocks to endpoints (the agent's side).
#![forbid(unsafe_code)]

mod block;
mod lease;
mod node;
mod pool;

pub use block::{BlockError, usable_addresses};
pub use heddle_model::Family;
pub use lease::{AddressError, Lease, Owner, Released, Resting, Snapshot, Stats};
pub use node::NodeAddresses;
pub use pool::{
    BlockStats, NodeKey, PoolAllocator, PoolConfig, PoolConfigError, PoolError, RestoreError,
};
