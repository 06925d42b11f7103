//! Command lines in, filters out.

use super::*;
use FilterFlag::*;
use serde_json::{Value, json};

fn build(flags: &[(FilterFlag, &str, bool)]) -> Result<Value, FilterError> {
    let mut builder = FilterBuilder::default();
    for (flag, value, not) in flags {
        builder.add(*flag, value, *not);
    }
    Ok(serde_json::to_value(builder.build()?).unwrap())
}

#[test]
fn flags_make_hubbles_filters() {
    for (flags, expected) in [
        (&[][..], json!({})),
        (
            &[(Verdict, "DROPPED", false), (Type, "drop,trace", false)],
            json!({"whitelist":[{"verdict":["DROPPED"],"event_type":["drop","trace"]}]}),
        ),
        (
            &[(Pod, "shop/web", false)],
            json!({"whitelist":[{"source_pod":["shop/web"]},{"destination_pod":["shop/web"]}]}),
        ),
        (
            &[(Pod, "web", false)],
            json!({"whitelist":[{"source_pod":["default/web"]},{"destination_pod":["default/web"]}]}),
        ),
        (
            &[(Pod, "web", false), (Namespace, "shop", false)],
            json!({"whitelist":[{"source_pod":["shop/web"]},{"destination_pod":["shop/web"]}]}),
        ),
        (
            &[(Namespace, "shop", false)],
            json!({"whitelist":[{"source_pod":["shop/"]},{"destination_pod":["shop/"]}]}),
        ),
        (
            &[(FromPod, "shop/web", false), (ToPod, "shop/db", false)],
            json!({"whitelist":[{"source_pod":["shop/web"],"destination_pod":["shop/db"]}]}),
        ),
        (
            &[(Pod, "shop/web", false), (Port, "80", false)],
            json!({"whitelist":[{"source_pod":["shop/web"],"source_port":["80"]},
                                {"destination_pod":["shop/web"],"destination_port":["80"]}]}),
        ),
        (
            &[(FromPod, "shop/web", false), (Port, "80", false)],
            json!({"whitelist":[{"source_pod":["shop/web"],"source_port":["80"]},
                                {"source_pod":["shop/web"],"destination_port":["80"]}]}),
        ),
        (
            &[(Label, "app in (a,b)", false), (FromIp, "10.0.0.1", false)],
            json!({"whitelist":[{"source_ip":["10.0.0.1"],"source_label":["app in (a,b)"]},
                                {"source_ip":["10.0.0.1"],"destination_label":["app in (a,b)"]}]}),
        ),
        (
            &[(Verdict, "FORWARDED", false), (Protocol, "icmp", true)],
            json!({"whitelist":[{"verdict":["FORWARDED"]}],"blacklist":[{"protocol":["icmp"]}]}),
        ),
        (
            &[(TcpFlags, "SYN,ack", false), (TcpFlags, "RST", false)],
            json!({"whitelist":[{"tcp_flags":["SYN,ack","RST"]}]}),
        ),
        (
            &[(ToIdentity, "world", true), (NotReply, "", false)],
            json!({"whitelist":[{"reply":[false]}],"blacklist":[{"destination_identity":["world"]}]}),
        ),
    ] {
        assert_eq!(build(flags).unwrap(), expected, "{flags:?}");
    }
}

#[test]
fn flags_that_contradict_are_refused() {
    for flags in [
        &[(Pod, "shop/a", false), (FromPod, "shop/b", false)][..],
        &[(Ip, "10.0.0.1", false), (ToIp, "10.0.0.2", false)],
        &[(Pod, "shop/a", false), (Namespace, "other", false)],
        &[(Verdict, "perhaps", false)],
        &[(TcpFlags, "SYN,SNY", false)],
        &[(TcpFlags, "", false)],
    ] {
        assert!(build(flags).is_err(), "{flags:?}");
    }
    // On the two sides of --not they do not meet.
    assert!(build(&[(Pod, "shop/a", false), (FromPod, "shop/b", true)]).is_ok());
}

#[test]
fn all_namespaces_widens_a_bare_pod() {
    let mut builder = FilterBuilder::default();
    builder.all_namespaces(true);
    builder.add(ToPod, "web", false);
    assert_eq!(
        serde_json::to_value(builder.build().unwrap()).unwrap(),
        json!({"whitelist":[{"destination_pod":["*/web"]}]})
    );
}
