//! The hub over a simulated kernel.

use super::*;
use crate::flows::simulated::{SimulatedKernel, denied};
use heddle_flow::{Denied, NearestAllow, Nobody, Verdict};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(10);

struct Bench {
    kernel: Arc<SimulatedKernel>,
    metrics: Arc<Metrics>,
    hub: FlowHub,
}

/// Explains nothing.
struct Silent;

impl Explainer for Silent {
    fn nearest(&self, _: &Denied) -> Vec<NearestAllow> {
        Vec::new()
    }
}

fn bench(capacity: usize) -> Bench {
    bench_with(capacity, Arc::new(Silent))
}

fn bench_with(capacity: usize, explainer: Arc<dyn Explainer>) -> Bench {
    let kernel = Arc::new(SimulatedKernel::default());
    let metrics = Arc::new(Metrics::new());
    let options = HubOptions {
        poll: Duration::from_millis(20),
        ..HubOptions::new("node-1", capacity)
    };
    let hub = FlowHub::start(
        Arc::clone(&kernel) as Arc<dyn Datapath>,
        Arc::new(Nobody),
        explainer,
        Arc::clone(&metrics),
        options,
    )
    .unwrap();
    Bench {
        kernel,
        metrics,
        hub,
    }
}

impl Bench {
    /// Waits until the hub has seen this many flows.
    async fn seen(&self, flows: u64) {
        let mut progress = self.hub.shared.progress.subscribe();
        tokio::time::timeout(DEADLINE, async {
            while self.hub.status().seen_flows < flows {
                progress.changed().await.unwrap();
            }
        })
        .await
        .unwrap();
    }

    fn observe(&self, request: serde_json::Value) -> Observation {
        self.hub
            .observe(serde_json::from_value(request).unwrap())
            .unwrap()
    }
}

async fn next(observation: &mut Observation) -> Option<Arc<Response>> {
    tokio::time::timeout(DEADLINE, observation.next())
        .await
        .unwrap()
}

fn port(response: &Response) -> u32 {
    response
        .flow()
        .and_then(heddle_flow::Flow::ports)
        .unwrap()
        .1
}

async fn ports(mut observation: Observation) -> Vec<u32> {
    let mut ports = Vec::new();
    while let Some(response) = next(&mut observation).await {
        ports.push(port(&response));
    }
    ports
}

fn events(ports: std::ops::Range<u16>) -> Vec<Event> {
    ports.map(|port| denied(u64::from(port), port)).collect()
}

#[tokio::test]
async fn the_past_is_what_was_asked_for() {
    let bench = bench(7);
    bench.kernel.send(&events(1..11));
    bench.seen(10).await;
    for (request, expected) in [
        (json!({}), vec![4, 5, 6, 7, 8, 9, 10]),
        (json!({"number":3}), vec![8, 9, 10]),
        (json!({"number":3,"first":true}), vec![4, 5, 6]),
        (json!({"number":0}), vec![]),
        (
            json!({"number":2,"blacklist":[{"destination_port":["9"]}]}),
            vec![8, 10],
        ),
        (
            json!({"whitelist":[{"destination_port":["5","6"],"protocol":["tcp"]}]}),
            vec![5, 6],
        ),
        (json!({"until":"1990-01-01T00:00:00Z"}), vec![]),
        (json!({"since":"2500-01-01T00:00:00Z"}), vec![]),
        (json!({"since":"1990-01-01T00:00:00Z","number":1}), vec![10]),
    ] {
        assert_eq!(
            ports(bench.observe(request.clone())).await,
            expected,
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_denied_connection_is_seen_within_200_milliseconds() {
    let bench = bench(4095);
    let mut observation = bench.observe(json!({
        "follow": true, "whitelist": [{"verdict": ["DROPPED"]}],
    }));
    // The median, so that one pause of a busy machine proves nothing.
    let mut delays = Vec::new();
    for port in 1..10 {
        let sent = Instant::now();
        bench.kernel.send(&[denied(1, port)]);
        let response = next(&mut observation).await.unwrap();
        delays.push(sent.elapsed());
        let flow = response.flow().unwrap();
        assert_eq!((flow.verdict, flow.drop_reason), (Verdict::Dropped, 133));
        assert_eq!(flow.node_name, "node-1");
    }
    delays.sort();
    assert!(delays[4] < Duration::from_millis(200), "{delays:?}");
}

#[tokio::test]
async fn a_follower_misses_nothing_between_past_and_present() {
    let bench = bench(4095);
    bench.kernel.send(&events(1..4));
    bench.seen(3).await;
    let mut observation = bench.observe(json!({"follow":true,"number":2}));
    bench.kernel.send(&events(4..600));
    for expected in 2..600 {
        assert_eq!(port(&next(&mut observation).await.unwrap()), expected);
    }
    // Without a word about the past, following starts now.
    let mut observation = bench.observe(json!({"follow":true}));
    bench.kernel.send(&events(900..901));
    assert_eq!(port(&next(&mut observation).await.unwrap()), 900);
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_missed() {
    let bench = bench(7);
    let mut observation = bench.observe(json!({"follow":true}));
    bench.kernel.send(&events(1..21));
    bench.seen(20).await;
    let first = next(&mut observation).await.unwrap();
    let Line::LostEvents(lost) = &first.line else {
        panic!("{first:?}");
    };
    assert_eq!(
        (lost.source, lost.num_events_lost),
        (LossSource::HubbleRingBuffer, 13)
    );
    assert_eq!(port(&next(&mut observation).await.unwrap()), 14);
    assert!(
        bench
            .metrics
            .render()
            .unwrap()
            .contains("hubble_lost_events_total{source=\"hubble_ring_buffer\"} 13")
    );
}

#[tokio::test]
async fn what_the_kernel_lost_is_a_line_of_its_own() {
    let bench = bench(15);
    let mut observation = bench.observe(json!({
        "follow": true, "whitelist": [{"verdict": ["FORWARDED"]}],
    }));
    bench.kernel.lose(0, 2);
    bench.kernel.lose(5, 0);
    let line = next(&mut observation).await.unwrap();
    let Line::LostEvents(lost) = &line.line else {
        panic!("{line:?}");
    };
    assert_eq!(
        (lost.source, lost.num_events_lost),
        (LossSource::PerfEventRingBuffer, 5)
    );
    let text = bench.metrics.render().unwrap();
    assert!(text.contains("hubble_lost_events_total{source=\"perf_event_ring_buffer\"} 5"));
}

#[tokio::test]
async fn what_the_kernel_left_out_on_purpose_is_counted_and_not_called_lost() {
    let bench = bench(15);
    let mut observation = bench.observe(json!({"follow": true}));
    bench.kernel.lose(0, 2);
    bench.kernel.send(&events(1..2));
    assert_eq!(port(&next(&mut observation).await.unwrap()), 1);
    let status = bench.hub.status();
    assert_eq!(
        (status.lost, status.sampled, status.sampling_now),
        (0, 2, true)
    );
    let text = bench.metrics.render().unwrap();
    assert!(text.contains("hubble_lost_events_total{source=\"perf_event_ring_buffer\"} 0"));
    assert!(text.contains("heddle_events_sampled_total 2"));
    let source = Arc::new(bench.hub);
    let warning = crate::api::FlowSource::warning(&source).unwrap();
    assert!(
        warning.contains("2 were counted but not shown"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_kernel_that_cannot_be_read_is_a_problem_in_the_status() {
    let bench = bench(15);
    bench.kernel.fail(Some("Operation not permitted"));
    tokio::time::timeout(DEADLINE, async {
        while bench.hub.status().problem.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let problem = bench.hub.status().problem.unwrap();
    assert!(problem.contains("Operation not permitted"), "{problem}");
    bench.kernel.fail(None);
    bench.kernel.send(&events(1..2));
    bench.seen(1).await;
    assert_eq!(bench.hub.status().problem, None);
}

#[tokio::test]
async fn stopping_ends_every_observation() {
    let bench = bench(15);
    let mut observation = bench.observe(json!({"follow":true}));
    let waiting = tokio::spawn(async move { observation.next().await.is_none() });
    let hub = bench.hub;
    tokio::task::spawn_blocking(move || hub.stop())
        .await
        .unwrap();
    assert!(
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .unwrap()
            .unwrap()
    );
}

#[tokio::test]
async fn following_ends_at_its_time() {
    let bench = bench(15);
    let until = Timestamp(wall_clock().0 + 50_000_000);
    let mut observation = bench.observe(json!({"follow":true,"until":until}));
    assert!(next(&mut observation).await.is_none());
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused() {
    let bench = bench(15);
    let request: ObserveRequest =
        serde_json::from_value(json!({"whitelist":[{"verdict":["perhaps"]}]})).unwrap();
    let refused = bench.hub.observe(request).err().unwrap();
    assert_eq!(refused.code(), "observe/bad-filter");
    let many: Vec<_> = (0..MAX_OBSERVERS)
        .map(|_| bench.observe(json!({"follow":true})))
        .collect();
    let refused = bench.hub.observe(ObserveRequest::default()).err().unwrap();
    assert_eq!(refused.code(), "observe/too-many-observers");
    drop(many);
    assert!(bench.hub.observe(ObserveRequest::default()).is_ok());
}

#[tokio::test]
async fn flows_have_names_of_their_own_and_the_time_of_day() {
    let bench = bench(127);
    bench.kernel.send(&events(1..101));
    bench.seen(100).await;
    let mut observation = bench.observe(json!({}));
    let mut names = std::collections::HashSet::new();
    while let Some(response) = next(&mut observation).await {
        let flow = response.flow().unwrap();
        assert!(names.insert(flow.uuid.clone()));
        // The simulated boot clock stands at one second.
        let age = wall_clock().0.abs_diff(flow.time.0);
        assert!(age < 60_000_000_000, "{age}");
    }
    assert_eq!(names.len(), 100);
}

/// Explains each denial by its port, once it may.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Explainer for Gate {
    fn nearest(&self, denied: &Denied) -> Vec<NearestAllow> {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        vec![NearestAllow {
            rule: denied.port.to_string(),
            ..NearestAllow::default()
        }]
    }
}

fn traced(port: u16) -> Event {
    Event {
        kind: heddle_abi::EVENT_TRACE,
        ..denied(1, port)
    }
}

fn explanation(response: &Response) -> Option<String> {
    let extensions = response.flow()?.extensions.as_ref()?;
    Some(extensions.value.nearest.first()?.rule.clone())
}

#[tokio::test]
async fn who_explains_slowly_holds_up_no_events_but_those_of_the_same_connection() {
    let gate = Arc::new(Gate::default());
    let bench = bench_with(4095, Arc::<Gate>::clone(&gate));
    let mut observation = bench.observe(json!({"follow":true}));
    // What happens to connection 1 is shown in order, what happens to others at once.
    bench
        .kernel
        .send(&[traced(1), denied(2, 1), traced(1), traced(2)]);
    assert_eq!(port(&next(&mut observation).await.unwrap()), 1);
    assert_eq!(port(&next(&mut observation).await.unwrap()), 2);
    bench.kernel.send(&[traced(1), traced(3)]);
    assert_eq!(port(&next(&mut observation).await.unwrap()), 3);
    gate.open();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let response = next(&mut observation).await.unwrap();
        seen.push((response.flow().unwrap().verdict, explanation(&response)));
    }
    let forwarded = (Verdict::Forwarded, None);
    assert_eq!(
        seen,
        [
            (Verdict::Dropped, Some("1".to_owned())),
            forwarded.clone(),
            forwarded
        ]
    );
}

#[tokio::test]
async fn denials_beyond_the_queue_are_shown_without_explanation_and_counted() {
    let gate = Arc::new(Gate::default());
    let bench = bench_with(4095, Arc::<Gate>::clone(&gate));
    let mut observation = bench.observe(json!({"follow":true}));
    let most = u16::try_from(EXPLAINED_AT_ONCE).unwrap();
    // One is being explained, so that the queue is full with the others.
    bench.kernel.send(&events(1..2));
    tokio::time::timeout(DEADLINE, async {
        while !bench.hub.shared.explained.is_idle() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    bench.kernel.send(&events(2..most + 5));
    for expected in most + 2..most + 5 {
        let response = next(&mut observation).await.unwrap();
        assert_eq!(port(&response), u32::from(expected));
        assert_eq!(explanation(&response), None);
    }
    let counted = |bench: &Bench| {
        let text = bench.metrics.render().unwrap();
        text.contains("heddle_flows_unexplained_total 3")
    };
    assert!(counted(&bench));
    gate.open();
    for expected in 1..most + 2 {
        let response = next(&mut observation).await.unwrap();
        assert_eq!(explanation(&response), Some(expected.to_string()));
    }
    assert!(counted(&bench));
}
