//! The embedded store: a process that keeps objects in one file and answers on a unix socket.
//!
//! Lines of JSON in both directions ([`wire`]). Reads and watches are answered from memory; a write is
//! acknowledged after the file has it on disk.

mod client;
mod disk;
mod overlay;
mod server;
mod wire;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use server::serve;

/// The file's name in the store's directory.
pub const FILE_NAME: &str = "store.redb";
