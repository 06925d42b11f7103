//! Ports that containers declare.

/// A port that one of a pod's containers declares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeclaredPort {
    /// Its name; empty for a port without one.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`, as written.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

impl DeclaredPort {
    /// The ports with names, in the form of the identity label `LabelSet::NAMED_PORTS`:
    /// `dns=UDP/53,http=TCP/8080`, sorted.
    pub fn named(ports: &[Self]) -> String {
        let mut found: Vec<String> = ports
            .iter()
            .filter(|port| !port.name.is_empty())
            .map(|port| format!("{}={}/{}", port.name, port.protocol, port.number))
            .collect();
        found.sort();
        found.join(",")
    }
}
