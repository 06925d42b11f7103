//! The former version of the ABI on a node, for `tests/upgrade.rs`: what `next_abi_node` does, with the layouts of the
//! version before.

#[path = "next_abi_node.rs"]
mod node;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    node::main()
}
