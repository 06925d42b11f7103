//! One file per family of commands.

pub mod completion;
pub mod connectivity;
pub mod daemon;
pub mod lab;
pub mod live;
mod log_filter;
pub mod policy;
pub mod sysdump;
pub mod version;
mod which;
