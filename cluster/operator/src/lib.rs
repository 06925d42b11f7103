//! The cluster's control loop: pod ranges for nodes, identity garbage collection.
