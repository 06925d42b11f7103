//! Links, addresses and routes, by netlink.

use crate::LabError;
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// Runs netlink requests in the current thread's network namespace.
pub fn in_this_namespace<T>(
    work: impl AsyncFnOnce(Handle) -> Result<T, LabError>,
) -> Result<T, LabError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| LabError::system("start netlink", error))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| LabError::system("open a netlink socket", error))?;
        let serving = tokio::spawn(connection);
        let result = work(handle).await;
        serving.abort();
        result
    })
}

fn failed(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LabError {
    let doing = doing.into();
    move |error| LabError::Network {
        doing,
        reason: error.to_string(),
    }
}

/// Index of a link; `None` when there is none of the name.
pub async fn find_link(handle: &Handle, name: &str) -> Result<Option<u32>, LabError> {
    let mut links = handle.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(found) => Ok(found.map(|message| message.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => {
            Ok(None)
        }
        Err(error) => Err(failed(format!("find the link {name}"))(error)),
    }
}

/// Index of a link that must be there.
pub async fn link(handle: &Handle, name: &str) -> Result<u32, LabError> {
    find_link(handle, name)
        .await?
        .ok_or_else(|| LabError::Network {
            doing: format!("find the link {name}"),
            reason: "there is none".into(),
        })
}

/// Brings a link up.
pub async fn bring_up(handle: &Handle, name: &str) -> Result<(), LabError> {
    let index = link(handle, name).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(failed(format!("bring up the link {name}")))
}

/// Makes a veth pair here and moves its other end, to be called `peer_name`, into `peer_namespace`.
/// Both ends are still down.
pub async fn veth_to(
    handle: &Handle,
    name: &str,
    peer_name: &str,
    peer_namespace: &std::fs::File,
    mtu: u32,
) -> Result<(), LabError> {
    // The other end first bears a name that is free here.
    let passing = format!("{name}p");
    handle
        .link()
        .add(LinkVeth::new(name, &passing).mtu(mtu).build())
        .execute()
        .await
        .map_err(failed(format!("make the link {name}")))?;
    let index = link(handle, &passing).await?;
    handle
        .link()
        .set(
            LinkUnspec::new_with_index(index)
                .setns_by_fd(peer_namespace.as_raw_fd())
                .name(peer_name)
                .mtu(mtu)
                .build(),
        )
        .execute()
        .await
        .map_err(failed(format!("move the other end of {name}")))
}

/// Adds an address without duplicate address detection.
pub async fn add_address(handle: &Handle, name: &str, address: IpNet) -> Result<(), LabError> {
    let index = link(handle, name).await?;
    let mut request = handle
        .address()
        .add(index, address.addr(), address.prefix_len());
    if address.addr().is_ipv6() {
        use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
        request
            .message_mut()
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request
        .execute()
        .await
        .map_err(failed(format!("add {address} to {name}")))
}

/// Adds or replaces a route to `prefix` through `gateway`.
pub async fn add_route(handle: &Handle, prefix: IpNet, gateway: IpAddr) -> Result<(), LabError> {
    handle
        .route()
        .add(route(prefix, Some(gateway))?)
        .replace()
        .execute()
        .await
        .map_err(failed(format!("route {prefix} through {gateway}")))
}

/// Removes the route to `prefix`; none is no error.
pub async fn remove_route(handle: &Handle, prefix: IpNet) -> Result<(), LabError> {
    match handle.route().del(route(prefix, None)?).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ESRCH => {
            Ok(())
        }
        result => result.map_err(failed(format!("remove the route to {prefix}"))),
    }
}

fn route(
    prefix: IpNet,
    gateway: Option<IpAddr>,
) -> Result<rtnetlink::packet_route::route::RouteMessage, LabError> {
    Ok(match (prefix, gateway) {
        (IpNet::V4(prefix), gateway) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(prefix.network(), prefix.prefix_len());
            match gateway {
                Some(IpAddr::V4(gateway)) => builder.gateway(gateway),
                Some(IpAddr::V6(gateway)) => builder.via(gateway),
                None => builder,
            }
            .build()
        }
        (IpNet::V6(prefix), gateway) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(prefix.network(), prefix.prefix_len());
            match gateway {
                Some(IpAddr::V6(gateway)) => builder.gateway(gateway),
                Some(IpAddr::V4(gateway)) => {
                    return Err(LabError::Network {
                        doing: format!("route {prefix} through {gateway}"),
                        reason: "an IPv6 route needs an IPv6 gateway".into(),
                    });
                }
                None => builder,
            }
            .build()
        }
    })
}

/// Priority of the rules that name the sources a link may send; the refusal comes after them.
const SOURCE_RULE: u32 = 1_000;
/// Priority of the rule that refuses every other source of a link.
const REFUSAL_RULE: u32 = 2_000;

/// Lets packets from an IPv6 prefix in through a link: the counterpart of IPv4's reverse path filter,
/// which the kernel lacks for IPv6.
pub async fn admit_source(handle: &Handle, link: &str, prefix: IpNet) -> Result<(), LabError> {
    let IpNet::V6(prefix) = prefix else {
        return Ok(());
    };
    handle
        .rule()
        .add()
        .v6()
        .input_interface(link)
        .source_prefix(prefix.network(), prefix.prefix_len())
        .priority(SOURCE_RULE)
        // The main table.
        .table_id(254)
        .action(RuleAction::ToTable)
        .replace()
        .execute()
        .await
        .map_err(failed(format!("admit {prefix} through {link}")))
}

/// Takes back [`admit_source`].
pub async fn refuse_source(handle: &Handle, link: &str, prefix: IpNet) -> Result<(), LabError> {
    let IpNet::V6(prefix) = prefix else {
        return Ok(());
    };
    let mut request = handle
        .rule()
        .add()
        .v6()
        .input_interface(link)
        .source_prefix(prefix.network(), prefix.prefix_len())
        .priority(SOURCE_RULE)
        .table_id(254)
        .action(RuleAction::ToTable);
    let message = request.message_mut().clone();
    match handle.rule().del(message).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENOENT => {
            Ok(())
        }
        result => result.map_err(failed(format!("refuse {prefix} through {link}"))),
    }
}

/// Refuses IPv6 packets of a link whose source no [`admit_source`] named.
pub async fn refuse_other_sources(handle: &Handle, link: &str) -> Result<(), LabError> {
    handle
        .rule()
        .add()
        .v6()
        .input_interface(link)
        .priority(REFUSAL_RULE)
        .action(RuleAction::Blackhole)
        .execute()
        .await
        .map_err(failed(format!("refuse other sources of {link}")))
}
