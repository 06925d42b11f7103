//! Labels, selectors, identities, entities and names: the words every other crate speaks.
//!
//! Everything here is a value: parsed, validated, comparable, and free of I/O, clocks and globals.
#![forbid(unsafe_code)]

mod entity;
mod family;
mod identity;
mod labels;
mod name;
mod near;
mod port;
mod selector;
pub mod setting;

pub use entity::{Entity, UnknownEntity};
pub use family::Family;
pub use identity::{Identity, IdentityScope};
pub use labels::{LabelFilter, LabelSet, Source};
pub use name::{NamespacedName, ParseNameError};
pub use near::closest;
pub use port::DeclaredPort;
pub use selector::{Operator, Requirement, Selector, SelectorError, SelectorTextError};
