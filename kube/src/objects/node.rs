//! `v1` Node: the fields that Heddle reads and writes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The `spec` of a Node, as far as it is about addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The first of its pods' ranges, which is all that old clusters write.
    #[serde(deserialize_with = "super::or_default")]
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<Value>,
    /// Its pods' ranges; texts, unless somebody wrote something else.
    #[serde(deserialize_with = "super::or_default")]
    #[serde(rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<Value>,
}

impl NodeSpec {
    /// The `spec` of a Node; an empty one where it cannot be read.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(&object["spec"]).unwrap_or_default()
    }

    /// The ranges as they are written: `podCIDRs`, or `podCIDR` of a node that only has that.
    pub fn ranges(&self) -> &[Value] {
        if self.pod_cidrs.is_empty() {
            self.pod_cidr.as_slice()
        } else {
            &self.pod_cidrs
        }
    }

    /// Writes ranges into a Node, whose other fields stay.
    pub fn write_ranges(object: &mut Value, ranges: &[String]) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        spec["podCIDR"] = json!(ranges.first());
        spec["podCIDRs"] = json!(ranges);
    }
}
