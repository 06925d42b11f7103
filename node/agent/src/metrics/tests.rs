//! What a scrape reads.

use super::*;
use crate::flows::simulated::{SimulatedKernel, denied};
use heddle_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, MetricSlot};
use heddle_datapath::MapUse;
use heddle_flow::{Context, Nobody, Timestamp, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn full() -> Metrics {
    let metrics = Metrics::new();
    let context = Context {
        node: "node-1",
        boot: Timestamp(0),
        unique: 1,
    };
    metrics.flow(&decode(&denied(1, 80), &context, &Nobody));
    metrics.cni_request(CniCommand::Add, true, Duration::from_millis(12));
    metrics.cni_request(CniCommand::Add, false, Duration::from_millis(1));
    metrics.set_endpoints(&[("ready", 2), ("waiting-for-identity", 1)]);
    metrics.set_endpoints(&[("ready", 3)]);
    metrics.set_policies(4, 17);
    metrics.set_identities(IdentityCount {
        reserved: 10,
        cluster: 5,
        node: 2,
    });
    metrics.conntrack_collected(100, 7);
    metrics.set_addresses(AddressCount {
        family: 4,
        used: 3,
        resting: 1,
        free: 249,
    });
    let mut kernel = SimulatedKernel::default();
    kernel.counters = vec![
        (
            (0, DIRECTION_EGRESS),
            MetricSlot {
                packets: 11,
                bytes: 1_100,
            },
        ),
        (
            (133, DIRECTION_INGRESS),
            MetricSlot {
                packets: 2,
                bytes: 148,
            },
        ),
    ];
    kernel.maps = vec![MapUse {
        name: "CONNECTIONS".to_owned(),
        entries: 50,
        max: 200,
    }];
    metrics.watch_datapath(Arc::new(kernel));
    metrics
}

#[test]
fn dashboards_find_ciliums_and_hubbles_names() {
    let text = full().render().unwrap();
    for line in [
        "hubble_flows_processed_total{type=\"Drop\",subtype=\"\",verdict=\"DROPPED\"} 1",
        "hubble_drop_total{reason=\"POLICY_DENIED\",protocol=\"TCP\"} 1",
        "hubble_lost_events_total{source=\"perf_event_ring_buffer\"} 0",
        "heddle_cni_request_duration_seconds_bucket{le=\"0.02\",command=\"ADD\",outcome=\"success\"} 1",
        "heddle_cni_request_duration_seconds_count{command=\"ADD\",outcome=\"failure\"} 1",
        "cilium_endpoint_state{endpoint_state=\"ready\"} 3",
        "cilium_policy 4",
        "cilium_policy_max_revision 17",
        "cilium_identity{type=\"cluster_local\"} 5",
        "cilium_datapath_conntrack_gc_entries{status=\"deleted\"} 7",
        "heddle_ipam_addresses{family=\"ipv4\",state=\"resting\"} 1",
        "cilium_ipam_capacity{family=\"ipv4\"} 253",
        "cilium_drop_count_total{reason=\"Policy denied\",direction=\"INGRESS\"} 2",
        "cilium_drop_bytes_total{reason=\"Policy denied\",direction=\"INGRESS\"} 148",
        "cilium_forward_count_total{direction=\"EGRESS\"} 11",
        "cilium_forward_bytes_total{direction=\"EGRESS\"} 1100",
        "cilium_bpf_map_pressure{map_name=\"CONNECTIONS\"} 0.25",
        "heddle_datapath_read_errors 0",
        "heddle_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\nin\n{text}");
    }
    assert!(!text.contains("waiting-for-identity"), "the state is gone");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_datapath_that_cannot_be_read_is_told() {
    let metrics = Metrics::new();
    metrics.watch_datapath(Arc::new(SimulatedKernel::default()));
    let text = metrics.render().unwrap();
    assert!(text.contains("heddle_datapath_read_errors 1"), "{text}");
}

async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn scrapes_are_answered() {
    let metrics = Arc::new(full());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::clone(&metrics), stopped));
    for (request, status, body) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            "200",
            "cilium_policy 4\n",
        ),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200", "# EOF\n"),
        ("GET /healthz HTTP/1.1\r\n\r\n", "503", "not ready"),
        ("GET /secret HTTP/1.1\r\n\r\n", "404", "/metrics"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405", "GET"),
        ("\r\n\r\n", "400", "no HTTP"),
    ] {
        let answer = ask(address, request.as_bytes()).await;
        let head = answer.lines().next().unwrap().to_owned();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {head}"
        );
        assert!(answer.contains(body), "{request:?}: {answer}");
    }
    metrics.set_ready(true);
    assert!(
        ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")
            .await
            .contains("\r\n\r\nok\n")
    );
    // A request that never ends is cut at its bound, not collected.
    let answer = ask(address, &[b'x'; MAX_REQUEST_AND_MORE]).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    stop.send(true).unwrap();
    server.await.unwrap();
}

const MAX_REQUEST_AND_MORE: usize = 8_192;

#[tokio::test]
async fn connections_without_a_request_keep_no_scrape_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::new(Metrics::new()), shutdown));
    let mut holders = Vec::new();
    for _ in 0..40 {
        holders.push(TcpStream::connect(address).await.unwrap());
    }
    // Less than the time that one of them may take to send its request.
    let scrape = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), scrape)
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(holders);
    stop.send_replace(true);
    server.await.unwrap();
}
