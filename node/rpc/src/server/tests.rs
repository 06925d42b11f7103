//! Questions of any length and answers byte by byte, over a real socket.

use super::*;
use crate::client::{CallError, Client};
use crate::cni::{Collected, GcParams, ValidAttachment};
use std::path::PathBuf;

const SOON: Duration = Duration::from_secs(20);

/// Counts what a `cni.gc` lists, in a blocking task; says nothing to everything else.
struct Counter;

impl Service for Counter {
    async fn answer(&self, request: Request) -> Result<Reply, ApiError> {
        if request.method != GcParams::METHOD {
            return Reply::one::<Nothing>(&None);
        }
        let asked: GcParams = request.read()?;
        let counted = tokio::task::spawn_blocking(move || {
            let removed = asked.valid_attachments.len();
            Reply::one::<GcParams>(&Collected { removed })
        });
        counted
            .await
            .map_err(|error| ApiError::new("test/stopped", error.to_string()))?
    }
}

/// A call with an answer that may be null.
#[derive(serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl Call for Nothing {
    const METHOD: &'static str = "test.nothing";
    type Answer = Option<u8>;
}

/// A server of its own until what is given is dropped.
fn start() -> (tempfile::TempDir, PathBuf, watch::Sender<bool>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listener = bind(&path).unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(Arc::new(Counter), listener, stopped));
    (folder, path, stop)
}

/// A list of attachments that takes so many MiB as JSON.
fn listing(mebibytes: usize) -> GcParams {
    let one = ValidAttachment {
        container_id: "c".repeat(1 << 20),
        interface: "eth0".into(),
    };
    GcParams {
        valid_attachments: vec![one; mebibytes],
    }
}

async fn ask(path: &Path, asked: GcParams) -> Result<Collected, CallError> {
    let client = Client::new(path, SOON);
    tokio::task::spawn_blocking(move || client.call(&asked))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_question_that_is_too_long_is_refused_by_name_and_one_that_fits_is_answered() {
    let (_folder, path, _stop) = start();
    assert_eq!(ask(&path, listing(3)).await.unwrap().removed, 3);
    let refused = ask(&path, listing(5)).await;
    let Err(CallError::Refused(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.code, error_codes::BAD_REQUEST);
    assert_eq!(error.message, "the question is longer than 4 MiB");
    assert!(!error.help.is_empty());
    assert_eq!(ask(&path, listing(1)).await.unwrap().removed, 1);
}

/// Also who looks at the answer only after the whole question is written.
#[tokio::test]
async fn the_rest_of_a_question_that_is_too_long_is_taken() {
    let (_folder, path, _stop) = start();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let mut question = vec![b'x'; 5 << 20];
    question.push(b'\n');
    let written = timeout(SOON, stream.write_all(&question)).await;
    written.unwrap().unwrap();
    let mut lines = BufReader::new(stream).lines();
    let said = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
    assert!(said.unwrap().contains("api/bad-request"));
}

/// Who never ends a question does not hold its place for long.
#[tokio::test]
async fn a_question_without_an_end_is_left() {
    let (_folder, path, _stop) = start();
    let stream = UnixStream::connect(&path).await.unwrap();
    let (reading, mut writing) = stream.into_split();
    let asking = tokio::spawn(async move {
        let some = vec![b'x'; 1 << 16];
        while writing.write_all(&some).await.is_ok() {}
    });
    let mut lines = BufReader::new(reading).lines();
    let said = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
    let said = said.unwrap_or_default();
    assert!(said.contains("api/bad-request"), "{said}");
    timeout(SOON, asking).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_is_one_line_of_its_result() {
    let (_folder, path, _stop) = start();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let questions = [
        "{\"method\":\"cni.gc\",\"params\":{\"validAttachments\":[]}}\n",
        "{\"method\":\"test.nothing\"}\n",
        "{\"method\":\"cni.gc\",\"params\":{\"validAttachments\":7}}\n",
    ];
    stream
        .write_all(questions.concat().as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || {
        let line = timeout(SOON, lines.next_line()).await;
        line.unwrap().unwrap().unwrap()
    };
    assert_eq!(next().await, "{\"result\":{\"removed\":0}}");
    assert_eq!(next().await, "{\"result\":null}");
    let refused = next().await;
    assert!(
        refused
            .starts_with("{\"error\":{\"code\":\"cni/invalid-request\",\"message\":\"parameters: "),
        "{refused}"
    );
}
