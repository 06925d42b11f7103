//! Never two leaders, whatever the network does: a simulation of the election, and candidates on a real store.

use super::*;
use crate::objects::LeaseSpec;
use crate::store::memory::MemoryStore;
use crate::store::{Kind, Store, StoreError, Version};
use heddle_model::NamespacedName;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Mostly short, sometimes longer than a lease.
    fn delay(&mut self) -> Duration {
        let limit = [20, 20, 200, 2_000, 20_000][(self.next() % 5) as usize];
        Duration::from_millis(self.next() % limit)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }
}

/// What happens to a candidate at a moment.
enum Moment {
    /// It asks for the lease.
    Ask,
    /// The store reads it.
    Read,
    /// It hears what the store has.
    Hear(Option<(Version, LeaseSpec)>),
    /// The store gets its write.
    Write(Option<Version>, LeaseSpec, Duration),
    /// It hears that it is written.
    Written(Version, LeaseSpec, Duration),
    /// It is killed and begins anew, under the same identity.
    Restart,
}

/// Candidates with clocks that show different times, and a store behind a network that delays and loses.
fn simulate(seed: u64, candidates: usize, moments: usize) -> (usize, usize) {
    let mut dice = Dice(seed);
    let timing = Timing::of_seconds(15);
    let identity = |number: usize| format!("candidate-{number}");
    let mut elections: Vec<Election> = (0..candidates)
        .map(|number| Election::new(identity(number), timing))
        .collect();
    let clocks: Vec<Duration> = (0..candidates)
        .map(|_| Duration::from_millis(dice.next() % 100_000_000))
        .collect();
    let mut lease: Option<(Version, LeaseSpec)> = None;
    let (mut writes, mut terms) = (0_u64, Vec::new());
    let mut agenda: BTreeMap<(Duration, u64), (usize, u64, Moment)> = BTreeMap::new();
    // What was on its way to a life of a candidate that ended is not heard by the next one.
    let mut lives = vec![0_u64; candidates];
    let mut order = 0;
    for number in 0..candidates {
        agenda.insert((Duration::ZERO, number as u64), (number, 0, Moment::Ask));
        order += 1;
    }
    for _ in 0..moments {
        let Some(((at, _), (who, life, moment))) = agenda.pop_first() else {
            break;
        };
        let local = clocks[who] + at;
        let mut then = |after: Duration, life: u64, moment: Moment| {
            order += 1;
            agenda.insert((at + after, order), (who, life, moment));
        };
        let alive = lives[who] == life;
        match moment {
            Moment::Ask if alive => {
                if dice.one_in(40) {
                    then(dice.delay(), life, Moment::Restart);
                } else {
                    then(dice.delay(), life, Moment::Read);
                }
            }
            Moment::Read => {
                if dice.one_in(10) {
                    then(timing.retry, life, Moment::Ask);
                } else {
                    then(dice.delay(), life, Moment::Hear(lease.clone()));
                }
            }
            Moment::Hear(read) if alive => {
                let borrowed = read.as_ref().map(|(version, spec)| (version, spec));
                let version = read.as_ref().map(|(version, _)| version.clone());
                let step = elections[who].look(local, borrowed, &format!("{at:?}"));
                match step {
                    Step::Wait => then(timing.retry, life, Moment::Ask),
                    Step::Create(spec) | Step::Update(spec) => {
                        let asked = local;
                        then(dice.delay(), life, Moment::Write(version, spec, asked));
                        // It does not wait for the answer for ever.
                        then(timing.renew, life, Moment::Ask);
                    }
                }
            }
            // A write arrives whoever sent it lives or not.
            Moment::Write(version, spec, asked) => {
                if lease.as_ref().map(|(version, _)| version) == version.as_ref() {
                    writes += 1;
                    let new = Version::new(writes.to_string());
                    lease = Some((new.clone(), spec.clone()));
                    if !dice.one_in(8) {
                        then(dice.delay(), life, Moment::Written(new, spec, asked));
                    }
                }
            }
            Moment::Written(version, spec, asked) if alive => {
                elections[who].written(asked, version, &spec);
                terms.extend(elections[who].leads(local).cloned());
            }
            Moment::Restart if alive => {
                lives[who] += 1;
                elections[who] = Election::new(identity(who), timing);
                then(dice.delay(), lives[who], Moment::Ask);
            }
            _ => {}
        }
        let leading: Vec<usize> = (0..candidates)
            .filter(|who| elections[*who].leads(clocks[*who] + at).is_some())
            .collect();
        assert!(
            leading.len() <= 1,
            "seed {seed}: at {at:?} {leading:?} lead"
        );
    }
    // A term has one holder, and no two have the same number.
    terms.sort_by_key(|term| term.transitions);
    terms.dedup();
    for pair in terms.windows(2) {
        assert!(pair[0].transitions < pair[1].transitions, "{pair:?}");
    }
    (terms.len(), writes as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_two_lead_at_the_same_time(seed in any::<u64>(), candidates in 2..5_usize) {
        simulate(seed, candidates, 1_500);
    }
}

#[test]
fn somebody_leads_and_it_changes_hands() {
    let (mut terms, mut writes) = (0, 0);
    for seed in 0..20 {
        let (led, written) = simulate(seed, 3, 3_000);
        terms += led;
        writes += written;
    }
    assert!(
        terms > 100 && writes > 1_000,
        "{terms} terms, {writes} writes"
    );
}

fn name() -> NamespacedName {
    NamespacedName::new("kube-system", "it")
}

fn stand(
    store: &Arc<dyn Store>,
    identity: &str,
) -> (tokio::task::JoinHandle<()>, Leadership, watch::Sender<bool>) {
    let election = Election::new(identity, Timing::of_seconds(15));
    let (candidate, leadership) = Candidate::new(Arc::clone(store), name(), election);
    let (stop, stopped) = watch::channel(false);
    (tokio::spawn(candidate.run(stopped)), leadership, stop)
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_after_its_lease_and_a_resigned_one_at_once() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (first, mut led, _stop) = stand(&store, "first");
    led.changed(None).await;
    let term = led.term().unwrap();
    assert_eq!((term.holder.as_str(), term.transitions), ("first", 0));
    let (second, mut next, stop_second) = stand(&store, "second");
    // It renews: for many times the length of a lease nobody takes over.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(led.term().as_ref(), Some(&term));
    assert_eq!(next.term(), None);
    first.abort();
    let killed = tokio::time::Instant::now();
    next.changed(None).await;
    assert_eq!(led.term(), None, "what is not renewed has run out before");
    assert!(killed.elapsed() >= Duration::from_secs(10));
    assert!(killed.elapsed() <= Duration::from_secs(20));
    let term = next.term().unwrap();
    assert_eq!((term.holder.as_str(), term.transitions), ("second", 1));
    let (third, mut last, _stop_third) = stand(&store, "third");
    let resigned = tokio::time::Instant::now();
    stop_second.send_replace(true);
    last.changed(None).await;
    assert!(resigned.elapsed() <= Timing::of_seconds(15).retry * 2);
    assert_eq!(last.term().unwrap().transitions, 2);
    second.await.unwrap();
    third.abort();
}

#[tokio::test(start_paused = true)]
async fn a_store_of_one_that_does_not_lead_takes_no_writes() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (first, mut led, _stop) = stand(&store, "first");
    led.changed(None).await;
    let (second, next, _stop_second) = stand(&store, "second");
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let leaders = LeaderStore::new(Arc::clone(&store), led.clone());
    let others = LeaderStore::new(Arc::clone(&store), next);
    leaders.create(Kind::Node, node("a")).await.unwrap();
    let refused = others.create(Kind::Node, node("b")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    // Killed, it goes on for as long as nobody else can lead, and no longer.
    first.abort();
    let term = led.term();
    led.changed(term.as_ref()).await;
    assert_eq!(led.term(), None);
    let refused = leaders.create(Kind::Node, node("b")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    second.abort();
}
