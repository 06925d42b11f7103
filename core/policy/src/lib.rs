//! Rules in, decisions and map entries out: the one place where a verdict is computed.
//!
//! [`compile`](compiled) turns the policies that select an endpoint into map entries for the kernel.
#![forbid(unsafe_code)]

pub mod compiled;
