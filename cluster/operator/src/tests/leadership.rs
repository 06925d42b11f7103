//! Two operators on one store: one works, the other follows it, and no block is given twice.

use super::*;
use async_trait::async_trait;
use heddle_kube::store::{Version, Watch};
use std::sync::Mutex;
use tokio::sync::oneshot;

/// A store whose updates of Nodes are held up on their way, once that is asked for.
struct SlowStore {
    store: MemoryStore,
    /// Updates that have not arrived yet.
    held: Mutex<Option<Vec<Value>>>,
    /// Another's updates that arrive right before this one gives its first block, and what became of them.
    overtaken: Mutex<Option<Arc<SlowStore>>>,
    outcomes: Mutex<Vec<Result<Object, StoreError>>>,
}

impl SlowStore {
    fn new(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            store,
            held: Mutex::new(None),
            overtaken: Mutex::new(None),
            outcomes: Mutex::new(Vec::new()),
        })
    }

    fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    fn held_count(&self) -> usize {
        self.held.lock().unwrap().as_ref().map_or(0, Vec::len)
    }

    /// What was held up arrives, though nobody waits for it any more.
    async fn let_go(&self) -> Vec<Result<Object, StoreError>> {
        let held = self.held.lock().unwrap().take().unwrap_or_default();
        let mut outcomes = Vec::new();
        for value in held {
            outcomes.push(self.store.update(Kind::Node, value).await);
        }
        outcomes
    }
}

#[async_trait]
impl Store for SlowStore {
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError> {
        self.store.list(scope).await
    }

    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError> {
        self.store.get(kind, name).await
    }

    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.store.create(kind, value).await
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        let gives = kind == Kind::Node && value["spec"]["podCIDRs"].is_array();
        let other = gives
            .then(|| self.overtaken.lock().unwrap().take())
            .flatten();
        if let Some(other) = other {
            let outcomes = Box::pin(other.let_go()).await;
            self.outcomes.lock().unwrap().extend(outcomes);
        }
        if kind == Kind::Node
            && let Some(held) = self.held.lock().unwrap().as_mut()
        {
            held.push(value.clone());
        } else {
            return self.store.update(kind, value).await;
        }
        let (_never, answer) = oneshot::channel::<()>();
        std::mem::forget(_never);
        let _ = answer.await;
        unreachable!("nobody answers")
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        self.store.apply_status(kind, name, manager, status).await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.store.delete(kind, name, version).await
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        self.store.watch(scopes)
    }

    fn position(&self, version: &Version) -> Option<u64> {
        self.store.position(version)
    }
}

/// The blocks of all nodes; panics where two have one.
async fn all_blocks(store: &MemoryStore) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for node in store.list(&Scope::all(Kind::Node)).await.unwrap() {
        for block in pod_cidrs(&node) {
            assert!(all.insert(block.clone()), "{block} was given twice");
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_gives_blocks_and_the_other_takes_over_after_a_kill() {
    let store = MemoryStore::new();
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let config = config("10.0.0.0/16", 24);
    let mut working = Operator::start_as("o0", config.clone(), Arc::clone(&shared));
    let mut made = 0;
    for round in 1..5 {
        let waiting = Operator::start_as(&format!("o{round}"), config.clone(), Arc::clone(&shared));
        for _ in 0..10 {
            let name = format!("n{made}");
            store.create(Kind::Node, node(&name, &[])).await.unwrap();
            made += 1;
            if made % 10 == 5 {
                // Killed between two nodes: nothing is given back.
                working.task.abort();
            }
        }
        for number in 0..made {
            blocks_of(&store, &format!("n{number}")).await;
        }
        assert_eq!(all_blocks(&store).await.len(), made);
        working = waiting;
    }
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_a_former_leader_was_giving_is_not_given_twice() {
    let store = MemoryStore::new();
    let slow = SlowStore::new(store.clone());
    let config = config("10.0.0.0/16", 24);
    let first = Operator::start_as("first", config.clone(), slow.clone());
    store.create(Kind::Node, node("a", &[])).await.unwrap();
    blocks_of(&store, "a").await;
    // The first gives z a block, and the write is held up until the second is about to give it to b.
    slow.hold();
    store.create(Kind::Node, node("z", &[])).await.unwrap();
    wait(async || (slow.held_count() == 1).then_some(())).await;
    first.task.abort();
    let _ = first.task.await;
    store.create(Kind::Node, node("b", &[])).await.unwrap();
    let next = SlowStore::new(store.clone());
    *next.overtaken.lock().unwrap() = Some(slow.clone());
    let second = Operator::start_as("second", config, next.clone());
    for name in ["b", "z"] {
        blocks_of(&store, name).await;
    }
    let late = std::mem::take(&mut *next.outcomes.lock().unwrap());
    assert!(
        matches!(late[..], [Err(StoreError::Conflict { .. })]),
        "{late:?}"
    );
    assert_eq!(all_blocks(&store).await.len(), 3);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_former_leader_that_arrives_between_is_heeded() {
    let store = MemoryStore::new();
    let slow = SlowStore::new(store.clone());
    let config = config("10.0.0.0/16", 24);
    let first = Operator::start_as("first", config.clone(), slow.clone());
    store.create(Kind::Node, node("a", &[])).await.unwrap();
    let given = blocks_of(&store, "a").await;
    assert_eq!(given, ["10.0.0.0/24"]);
    slow.hold();
    store.create(Kind::Node, node("z", &[])).await.unwrap();
    wait(async || (slow.held_count() == 1).then_some(())).await;
    first.task.abort();
    let _ = first.task.await;
    // It arrives after the leader died and before the next one begins.
    assert!(slow.let_go().await.iter().all(Result::is_ok));
    store.create(Kind::Node, node("b", &[])).await.unwrap();
    let second = Operator::start_as("second", config, Arc::new(store.clone()));
    blocks_of(&store, "b").await;
    assert_eq!(all_blocks(&store).await.len(), 3);
    second.stop().await;
}
