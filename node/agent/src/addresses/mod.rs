//! Who the addresses of the cluster are: nodes, other nodes' pods, and the rows of the ipcache.

pub(crate) mod ipcache;
pub(crate) mod nodes;
pub(crate) mod peers;
pub(crate) mod prefixes;
pub(crate) mod remote;
mod route_check;

pub(crate) use route_check::RouteCheck;
