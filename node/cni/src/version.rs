//! The versions of the CNI specification that the plugin speaks.

use crate::error::{CniError, codes};

/// A version of the CNI specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// 0.3.1: ADD, DEL, VERSION.
    V0_3_1,
    /// 0.4.0: and CHECK.
    V0_4_0,
    /// 1.0.0: addresses lose their `version` field.
    V1_0_0,
    /// 1.1.0: and GC, STATUS; interfaces and routes have an MTU.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest version.
    pub const LATEST: Self = Self::V1_1_0;

    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version with this name.
    ///
    /// # Errors
    /// Code 1, incompatible version.
    pub fn parse(name: &str) -> Result<Self, CniError> {
        Self::ALL
            .into_iter()
            .find(|version| version.name() == name)
            .ok_or_else(|| {
                CniError::new(
                    codes::INCOMPATIBLE_VERSION,
                    format!("cniVersion {name:?} is not supported"),
                )
                .details(format!(
                    "supported: {}",
                    Self::ALL.map(Self::name).join(", ")
                ))
            })
    }
}
