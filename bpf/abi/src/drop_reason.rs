//! Drop reasons (reference 3.8).

/// Why a packet was not forwarded.
///
/// Numbers and Hubble names are Cilium's, so existing dashboards and clients read them; Heddle's words
/// for an operator are [`DropReason::description`].
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DropReason {
    /// Invalid source mac.
    InvalidSourceMac = 130,
    /// Invalid destination mac.
    InvalidDestinationMac = 131,
    /// Invalid source ip.
    InvalidSourceIp = 132,
    /// Policy denied.
    PolicyDenied = 133,
    /// Invalid packet.
    InvalidPacketDropped = 134,
    /// CT: Truncated or invalid header.
    CtTruncatedOrInvalidHeader = 135,
    /// Fragmentation needed.
    FragmentationNeeded = 136,
    /// CT: Unknown L4 protocol.
    CtUnknownL4Protocol = 137,
    /// CT: Can't create entry from packet.
    CtCannotCreateEntryFromPacket = 138,
    /// Unsupported L3 protocol.
    UnsupportedL3Protocol = 139,
    /// Missed tail call.
    MissedTailCall = 140,
    /// Error writing to packet.
    ErrorWritingToPacket = 141,
    /// Unknown L4 protocol.
    UnknownL4Protocol = 142,
    /// Unknown ICMPv4 code.
    UnknownIcmpv4Code = 143,
    /// Unknown ICMPv4 type.
    UnknownIcmpv4Type = 144,
    /// Unknown ICMPv6 code.
    UnknownIcmpv6Code = 145,
    /// Unknown ICMPv6 type.
    UnknownIcmpv6Type = 146,
    /// Error retrieving tunnel key.
    ErrorRetrievingTunnelKey = 147,
    /// Error retrieving tunnel options.
    ErrorRetrievingTunnelOptions = 148,
    /// Invalid Geneve option.
    InvalidGeneveOption = 149,
    /// Unknown L3 target address.
    UnknownL3TargetAddress = 150,
    /// Stale or unroutable IP.
    StaleOrUnroutableIp = 151,
    /// No matching local container found.
    NoMatchingLocalContainerFound = 152,
    /// Error while correcting L3 checksum.
    ErrorWhileCorrectingL3Checksum = 153,
    /// Error while correcting L4 checksum.
    ErrorWhileCorrectingL4Checksum = 154,
    /// CT: Map insertion failed.
    CtMapInsertionFailed = 155,
    /// Invalid IPv6 extension header.
    InvalidIpv6ExtensionHeader = 156,
    /// IP fragmentation not supported.
    IpFragmentationNotSupported = 157,
    /// Service backend not found.
    ServiceBackendNotFound = 158,
    /// Unsupported service protocol.
    UnsupportedServiceProtocol = 159,
    /// No tunnel/encapsulation endpoint.
    NoTunnelOrEncapsulationEndpoint = 160,
    /// NAT 46/64 not enabled.
    Nat46x64Disabled = 161,
    /// Reached EDT rate-limiting drop horizon.
    ReachedEdtRateLimitingDropHorizon = 162,
    /// Unknown connection tracking state.
    UnknownConnectionTrackingState = 163,
    /// Local host is unreachable.
    LocalHostIsUnreachable = 164,
    /// No configuration available to perform policy decision.
    NoConfigurationAvailableToPerformPolicyDecision = 165,
    /// Unsupported L2 protocol.
    UnsupportedL2Protocol = 166,
    /// No mapping for NAT masquerade.
    NoMappingForNatMasquerade = 167,
    /// Unsupported protocol for NAT masquerade.
    UnsupportedProtocolForNatMasquerade = 168,
    /// FIB lookup failed.
    FibLookupFailed = 169,
    /// Encapsulation traffic is prohibited.
    EncapsulationTrafficIsProhibited = 170,
    /// Invalid identity.
    InvalidIdentity = 171,
    /// Unknown sender.
    UnknownSender = 172,
    /// NAT not needed.
    NatNotNeeded = 173,
    /// Is a ClusterIP.
    IsAClusterip = 174,
    /// First logical datagram fragment not found.
    FirstLogicalDatagramFragmentNotFound = 175,
    /// Forbidden ICMPv6 message.
    ForbiddenIcmpv6Message = 176,
    /// Denied by LB src range check.
    DeniedByLbSrcRangeCheck = 177,
    /// Socket lookup failed.
    SocketLookupFailed = 178,
    /// Socket assign failed.
    SocketAssignFailed = 179,
    /// Proxy redirection not supported for protocol.
    ProxyRedirectionNotSupportedForProtocol = 180,
    /// Policy denied by denylist.
    PolicyDeny = 181,
    /// VLAN traffic disallowed by VLAN filter.
    VlanFiltered = 182,
    /// Incorrect VNI from VTEP.
    InvalidVni = 183,
    /// Failed to update or lookup TC buffer.
    InvalidTcBuffer = 184,
    /// No SID was found for the IP address.
    NoSid = 185,
    /// SRv6 state was removed during tail call.
    MissingSrv6State = 186,
    /// L3 translation from IPv4 to IPv6 failed (NAT46).
    Nat46 = 187,
    /// L3 translation from IPv6 to IPv4 failed (NAT64).
    Nat64 = 188,
    /// Authentication required.
    AuthRequired = 189,
    /// No conntrack map found.
    CtNoMapFound = 190,
    /// No nat map found.
    SnatNoMapFound = 191,
    /// Invalid ClusterID.
    InvalidClusterId = 192,
    /// Unsupported packet protocol for DSR encapsulation.
    UnsupportedProtocolForDsrEncap = 193,
    /// No egress gateway found.
    NoEgressGateway = 194,
    /// Traffic is unencrypted.
    UnencryptedTraffic = 195,
    /// TTL exceeded.
    TtlExceeded = 196,
    /// No node ID found.
    NoNodeId = 197,
    /// Rate limited.
    RateLimited = 198,
    /// IGMP handled.
    IgmpHandled = 199,
    /// IGMP subscribed.
    IgmpSubscribed = 200,
    /// Multicast handled.
    MulticastHandled = 201,
    /// Host datapath not ready.
    HostNotReady = 202,
    /// Endpoint policy program not available.
    EpNotReady = 203,
    /// No Egress IP configured.
    NoEgressIp = 204,
    /// Punt to proxy.
    PuntProxy = 205,
    /// No device.
    NoDevice = 206,
}

impl DropReason {
    /// Every reason, in order of its number.
    pub const ALL: &'static [DropReason] = &[
        Self::InvalidSourceMac,
        Self::InvalidDestinationMac,
        Self::InvalidSourceIp,
        Self::PolicyDenied,
        Self::InvalidPacketDropped,
        Self::CtTruncatedOrInvalidHeader,
        Self::FragmentationNeeded,
        Self::CtUnknownL4Protocol,
        Self::CtCannotCreateEntryFromPacket,
        Self::UnsupportedL3Protocol,
        Self::MissedTailCall,
        Self::ErrorWritingToPacket,
        Self::UnknownL4Protocol,
        Self::UnknownIcmpv4Code,
        Self::UnknownIcmpv4Type,
        Self::UnknownIcmpv6Code,
        Self::UnknownIcmpv6Type,
        Self::ErrorRetrievingTunnelKey,
        Self::ErrorRetrievingTunnelOptions,
        Self::InvalidGeneveOption,
        Self::UnknownL3TargetAddress,
        Self::StaleOrUnroutableIp,
        Self::NoMatchingLocalContainerFound,
        Self::ErrorWhileCorrectingL3Checksum,
        Self::ErrorWhileCorrectingL4Checksum,
        Self::CtMapInsertionFailed,
        Self::InvalidIpv6ExtensionHeader,
        Self::IpFragmentationNotSupported,
        Self::ServiceBackendNotFound,
        Self::UnsupportedServiceProtocol,
        Self::NoTunnelOrEncapsulationEndpoint,
        Self::Nat46x64Disabled,
        Self::ReachedEdtRateLimitingDropHorizon,
        Self::UnknownConnectionTrackingState,
        Self::LocalHostIsUnreachable,
        Self::NoConfigurationAvailableToPerformPolicyDecision,
        Self::UnsupportedL2Protocol,
        Self::NoMappingForNatMasquerade,
        Self::UnsupportedProtocolForNatMasquerade,
        Self::FibLookupFailed,
        Self::EncapsulationTrafficIsProhibited,
        Self::InvalidIdentity,
        Self::UnknownSender,
        Self::NatNotNeeded,
        Self::IsAClusterip,
        Self::FirstLogicalDatagramFragmentNotFound,
        Self::ForbiddenIcmpv6Message,
        Self::DeniedByLbSrcRangeCheck,
        Self::SocketLookupFailed,
        Self::SocketAssignFailed,
        Self::ProxyRedirectionNotSupportedForProtocol,
        Self::PolicyDeny,
        Self::VlanFiltered,
        Self::InvalidVni,
        Self::InvalidTcBuffer,
        Self::NoSid,
        Self::MissingSrv6State,
        Self::Nat46,
        Self::Nat64,
        Self::AuthRequired,
        Self::CtNoMapFound,
        Self::SnatNoMapFound,
        Self::InvalidClusterId,
        Self::UnsupportedProtocolForDsrEncap,
        Self::NoEgressGateway,
        Self::UnencryptedTraffic,
        Self::TtlExceeded,
        Self::NoNodeId,
        Self::RateLimited,
        Self::IgmpHandled,
        Self::IgmpSubscribed,
        Self::MulticastHandled,
        Self::HostNotReady,
        Self::EpNotReady,
        Self::NoEgressIp,
        Self::PuntProxy,
        Self::NoDevice,
    ];

    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| *reason as u8 == number)
    }

    /// Name in Hubble's `DropReason` enum; empty where Hubble has none.
    pub const fn hubble_name(self) -> &'static str {
        match self {
            Self::InvalidSourceMac => "INVALID_SOURCE_MAC",
            Self::InvalidDestinationMac => "INVALID_DESTINATION_MAC",
            Self::InvalidSourceIp => "INVALID_SOURCE_IP",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::InvalidPacketDropped => "INVALID_PACKET_DROPPED",
            Self::CtTruncatedOrInvalidHeader => "CT_TRUNCATED_OR_INVALID_HEADER",
            Self::FragmentationNeeded => "CT_MISSING_TCP_ACK_FLAG",
            Self::CtUnknownL4Protocol => "CT_UNKNOWN_L4_PROTOCOL",
            Self::CtCannotCreateEntryFromPacket => "CT_CANNOT_CREATE_ENTRY_FROM_PACKET",
            Self::UnsupportedL3Protocol => "UNSUPPORTED_L3_PROTOCOL",
            Self::MissedTailCall => "MISSED_TAIL_CALL",
            Self::ErrorWritingToPacket => "ERROR_WRITING_TO_PACKET",
            Self::UnknownL4Protocol => "UNKNOWN_L4_PROTOCOL",
            Self::UnknownIcmpv4Code => "UNKNOWN_ICMPV4_CODE",
            Self::UnknownIcmpv4Type => "UNKNOWN_ICMPV4_TYPE",
            Self::UnknownIcmpv6Code => "UNKNOWN_ICMPV6_CODE",
            Self::UnknownIcmpv6Type => "UNKNOWN_ICMPV6_TYPE",
            Self::ErrorRetrievingTunnelKey => "ERROR_RETRIEVING_TUNNEL_KEY",
            Self::ErrorRetrievingTunnelOptions => "ERROR_RETRIEVING_TUNNEL_OPTIONS",
            Self::InvalidGeneveOption => "INVALID_GENEVE_OPTION",
            Self::UnknownL3TargetAddress => "UNKNOWN_L3_TARGET_ADDRESS",
            Self::StaleOrUnroutableIp => "STALE_OR_UNROUTABLE_IP",
            Self::NoMatchingLocalContainerFound => "NO_MATCHING_LOCAL_CONTAINER_FOUND",
            Self::ErrorWhileCorrectingL3Checksum => "ERROR_WHILE_CORRECTING_L3_CHECKSUM",
            Self::ErrorWhileCorrectingL4Checksum => "ERROR_WHILE_CORRECTING_L4_CHECKSUM",
            Self::CtMapInsertionFailed => "CT_MAP_INSERTION_FAILED",
            Self::InvalidIpv6ExtensionHeader => "INVALID_IPV6_EXTENSION_HEADER",
            Self::IpFragmentationNotSupported => "IP_FRAGMENTATION_NOT_SUPPORTED",
            Self::ServiceBackendNotFound => "SERVICE_BACKEND_NOT_FOUND",
            Self::UnsupportedServiceProtocol => "",
            Self::NoTunnelOrEncapsulationEndpoint => "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT",
            Self::Nat46x64Disabled => "FAILED_TO_INSERT_INTO_PROXYMAP",
            Self::ReachedEdtRateLimitingDropHorizon => "REACHED_EDT_RATE_LIMITING_DROP_HORIZON",
            Self::UnknownConnectionTrackingState => "UNKNOWN_CONNECTION_TRACKING_STATE",
            Self::LocalHostIsUnreachable => "LOCAL_HOST_IS_UNREACHABLE",
            Self::NoConfigurationAvailableToPerformPolicyDecision => {
                "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION"
            }
            Self::UnsupportedL2Protocol => "UNSUPPORTED_L2_PROTOCOL",
            Self::NoMappingForNatMasquerade => "NO_MAPPING_FOR_NAT_MASQUERADE",
            Self::UnsupportedProtocolForNatMasquerade => "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE",
            Self::FibLookupFailed => "FIB_LOOKUP_FAILED",
            Self::EncapsulationTrafficIsProhibited => "ENCAPSULATION_TRAFFIC_IS_PROHIBITED",
            Self::InvalidIdentity => "INVALID_IDENTITY",
            Self::UnknownSender => "UNKNOWN_SENDER",
            Self::NatNotNeeded => "NAT_NOT_NEEDED",
            Self::IsAClusterip => "IS_A_CLUSTERIP",
            Self::FirstLogicalDatagramFragmentNotFound => {
                "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"
            }
            Self::ForbiddenIcmpv6Message => "FORBIDDEN_ICMPV6_MESSAGE",
            Self::DeniedByLbSrcRangeCheck => "DENIED_BY_LB_SRC_RANGE_CHECK",
            Self::SocketLookupFailed => "SOCKET_LOOKUP_FAILED",
            Self::SocketAssignFailed => "SOCKET_ASSIGN_FAILED",
            Self::ProxyRedirectionNotSupportedForProtocol => {
                "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL"
            }
            Self::PolicyDeny => "POLICY_DENY",
            Self::VlanFiltered => "VLAN_FILTERED",
            Self::InvalidVni => "INVALID_VNI",
            Self::InvalidTcBuffer => "INVALID_TC_BUFFER",
            Self::NoSid => "NO_SID",
            Self::MissingSrv6State => "MISSING_SRV6_STATE",
            Self::Nat46 => "NAT46",
            Self::Nat64 => "NAT64",
            Self::AuthRequired => "AUTH_REQUIRED",
            Self::CtNoMapFound => "CT_NO_MAP_FOUND",
            Self::SnatNoMapFound => "SNAT_NO_MAP_FOUND",
            Self::InvalidClusterId => "INVALID_CLUSTER_ID",
            Self::UnsupportedProtocolForDsrEncap => "UNSUPPORTED_PROTOCOL_FOR_DSR_ENCAP",
            Self::NoEgressGateway => "NO_EGRESS_GATEWAY",
            Self::UnencryptedTraffic => "UNENCRYPTED_TRAFFIC",
            Self::TtlExceeded => "TTL_EXCEEDED",
            Self::NoNodeId => "NO_NODE_ID",
            Self::RateLimited => "DROP_RATE_LIMITED",
            Self::IgmpHandled => "IGMP_HANDLED",
            Self::IgmpSubscribed => "IGMP_SUBSCRIBED",
            Self::MulticastHandled => "MULTICAST_HANDLED",
            Self::HostNotReady => "DROP_HOST_NOT_READY",
            Self::EpNotReady => "DROP_EP_NOT_READY",
            Self::NoEgressIp => "DROP_NO_EGRESS_IP",
            Self::PuntProxy => "DROP_PUNT_PROXY",
            Self::NoDevice => "",
        }
    }

    /// The words Cilium's metrics use as the `reason` label.
    pub const fn description(self) -> &'static str {
        match self {
            Self::InvalidSourceMac => "Invalid source mac",
            Self::InvalidDestinationMac => "Invalid destination mac",
            Self::InvalidSourceIp => "Invalid source ip",
            Self::PolicyDenied => "Policy denied",
            Self::InvalidPacketDropped => "Invalid packet",
            Self::CtTruncatedOrInvalidHeader => "CT: Truncated or invalid header",
            Self::FragmentationNeeded => "Fragmentation needed",
            Self::CtUnknownL4Protocol => "CT: Unknown L4 protocol",
            Self::CtCannotCreateEntryFromPacket => "CT: Can't create entry from packet",
            Self::UnsupportedL3Protocol => "Unsupported L3 protocol",
            Self::MissedTailCall => "Missed tail call",
            Self::ErrorWritingToPacket => "Error writing to packet",
            Self::UnknownL4Protocol => "Unknown L4 protocol",
            Self::UnknownIcmpv4Code => "Unknown ICMPv4 code",
            Self::UnknownIcmpv4Type => "Unknown ICMPv4 type",
            Self::UnknownIcmpv6Code => "Unknown ICMPv6 code",
            Self::UnknownIcmpv6Type => "Unknown ICMPv6 type",
            Self::ErrorRetrievingTunnelKey => "Error retrieving tunnel key",
            Self::ErrorRetrievingTunnelOptions => "Error retrieving tunnel options",
            Self::InvalidGeneveOption => "Invalid Geneve option",
            Self::UnknownL3TargetAddress => "Unknown L3 target address",
            Self::StaleOrUnroutableIp => "Stale or unroutable IP",
            Self::NoMatchingLocalContainerFound => "No matching local container found",
            Self::ErrorWhileCorrectingL3Checksum => "Error while correcting L3 checksum",
            Self::ErrorWhileCorrectingL4Checksum => "Error while correcting L4 checksum",
            Self::CtMapInsertionFailed => "CT: Map insertion failed",
            Self::InvalidIpv6ExtensionHeader => "Invalid IPv6 extension header",
            Self::IpFragmentationNotSupported => "IP fragmentation not supported",
            Self::ServiceBackendNotFound => "Service backend not found",
            Self::UnsupportedServiceProtocol => "Unsupported service protocol",
            Self::NoTunnelOrEncapsulationEndpoint => "No tunnel/encapsulation endpoint",
            Self::Nat46x64Disabled => "NAT 46/64 not enabled",
            Self::ReachedEdtRateLimitingDropHorizon => "Reached EDT rate-limiting drop horizon",
            Self::UnknownConnectionTrackingState => "Unknown connection tracking state",
            Self::LocalHostIsUnreachable => "Local host is unreachable",
            Self::NoConfigurationAvailableToPerformPolicyDecision => {
                "No configuration available to perform policy decision"
            }
            Self::UnsupportedL2Protocol => "Unsupported L2 protocol",
            Self::NoMappingForNatMasquerade => "No mapping for NAT masquerade",
            Self::UnsupportedProtocolForNatMasquerade => "Unsupported protocol for NAT masquerade",
            Self::FibLookupFailed => "FIB lookup failed",
            Self::EncapsulationTrafficIsProhibited => "Encapsulation traffic is prohibited",
            Self::InvalidIdentity => "Invalid identity",
            Self::UnknownSender => "Unknown sender",
            Self::NatNotNeeded => "NAT not needed",
            Self::IsAClusterip => "Is a ClusterIP",
            Self::FirstLogicalDatagramFragmentNotFound => {
                "First logical datagram fragment not found"
            }
            Self::ForbiddenIcmpv6Message => "Forbidden ICMPv6 message",
            Self::DeniedByLbSrcRangeCheck => "Denied by LB src range check",
            Self::SocketLookupFailed => "Socket lookup failed",
            Self::SocketAssignFailed => "Socket assign failed",
            Self::ProxyRedirectionNotSupportedForProtocol => {
                "Proxy redirection not supported for protocol"
            }
            Self::PolicyDeny => "Policy denied by denylist",
            Self::VlanFiltered => "VLAN traffic disallowed by VLAN filter",
            Self::InvalidVni => "Incorrect VNI from VTEP",
            Self::InvalidTcBuffer => "Failed to update or lookup TC buffer",
            Self::NoSid => "No SID was found for the IP address",
            Self::MissingSrv6State => "SRv6 state was removed during tail call",
            Self::Nat46 => "L3 translation from IPv4 to IPv6 failed (NAT46)",
            Self::Nat64 => "L3 translation from IPv6 to IPv4 failed (NAT64)",
            Self::AuthRequired => "Authentication required",
            Self::CtNoMapFound => "No conntrack map found",
            Self::SnatNoMapFound => "No nat map found",
            Self::InvalidClusterId => "Invalid ClusterID",
            Self::UnsupportedProtocolForDsrEncap => {
                "Unsupported packet protocol for DSR encapsulation"
            }
            Self::NoEgressGateway => "No egress gateway found",
            Self::UnencryptedTraffic => "Traffic is unencrypted",
            Self::TtlExceeded => "TTL exceeded",
            Self::NoNodeId => "No node ID found",
            Self::RateLimited => "Rate limited",
            Self::IgmpHandled => "IGMP handled",
            Self::IgmpSubscribed => "IGMP subscribed",
            Self::MulticastHandled => "Multicast handled",
            Self::HostNotReady => "Host datapath not ready",
            Self::EpNotReady => "Endpoint policy program not available",
            Self::NoEgressIp => "No Egress IP configured",
            Self::PuntProxy => "Punt to proxy",
            Self::NoDevice => "No device",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ciliums() {
        assert_eq!(DropReason::PolicyDenied as u8, 133);
        assert_eq!(DropReason::PolicyDeny as u8, 181);
        assert_eq!(
            DropReason::InvalidSourceIp.hubble_name(),
            "INVALID_SOURCE_IP"
        );
        assert_eq!(DropReason::from_number(133), Some(DropReason::PolicyDenied));
        assert_eq!(DropReason::from_number(12), None);
        for pair in DropReason::ALL.windows(2) {
            assert_eq!(pair[0] as u8 + 1, pair[1] as u8);
        }
    }
}
