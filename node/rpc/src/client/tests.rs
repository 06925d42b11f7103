//! A server that the tests play: answers in pieces, late, cut off, and none.

use super::*;
use crate::cni::StatusParams;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

const SOON: Duration = Duration::from_secs(20);

/// Takes one question and answers these pieces, with a pause between two of them.
fn answer(
    pieces: &'static [&'static str],
    pause: Duration,
) -> (tempfile::TempDir, JoinHandle<String>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&stream).read_line(&mut asked).unwrap();
        for piece in pieces {
            // Who asked may have gone.
            let _ = stream.write_all(piece.as_bytes());
            std::thread::sleep(pause);
        }
        asked
    });
    (folder, server)
}

fn ask(
    pieces: &'static [&'static str],
    pause: Duration,
    deadline: Duration,
) -> Result<Value, CallError> {
    let (folder, server) = answer(pieces, pause);
    let answer = Client::new(&folder.path().join("s"), deadline).ask("m", Value::Null);
    server.join().unwrap();
    answer
}

#[test]
fn an_answer_may_come_in_pieces() {
    let pieces = &["{\"resu", "lt\":[1,", "2]}\n"];
    let got = ask(pieces, Duration::from_millis(5), SOON).unwrap();
    assert_eq!(got, serde_json::json!([1, 2]));
}

#[test]
fn a_line_that_trickles_in_has_one_deadline() {
    let pieces = &[
        "{\"result\":",
        "1",
        "1",
        "1",
        "1",
        "1",
        "1",
        "1",
        "1",
        "1",
        "}\n",
    ];
    let deadline = Duration::from_millis(120);
    let late = ask(pieces, Duration::from_millis(30), deadline);
    assert!(
        matches!(late, Err(CallError::Deadline(it)) if it == deadline),
        "{late:?}"
    );
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let no_pause = Duration::ZERO;
    let refused = ask(
        &["{\"error\":{\"code\":\"a/b\",\"message\":\"no\"}}\n"],
        no_pause,
        SOON,
    );
    assert!(matches!(refused, Err(CallError::Refused(ref error)) if error.code == "a/b"));
    let cut = ask(&["{\"result\":1"], no_pause, SOON);
    assert!(matches!(cut, Err(CallError::HungUp)), "{cut:?}");
    for nonsense in [
        &["hello\n"] as &'static [&'static str],
        &["{}\n"],
        &["{\"end\":true}\n"],
    ] {
        let malformed = ask(nonsense, no_pause, SOON);
        assert!(
            matches!(malformed, Err(CallError::Malformed(_))),
            "{nonsense:?}: {malformed:?}"
        );
    }
    let nobody = Client::new(Path::new("/nonexistent/socket"), SOON).ask("m", Value::Null);
    assert!(
        matches!(nobody, Err(CallError::Unreachable(_))),
        "{nobody:?}"
    );
}

/// Takes a few bytes of a question, answers, and hangs up with the rest unread.
fn interrupted(answer: &'static str) -> Result<Value, CallError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let long = Value::String("x".repeat(5 << 20));
    let answer = Client::new(&path, SOON).ask("m", long);
    server.join().unwrap();
    answer
}

#[test]
fn who_is_refused_in_the_middle_of_the_question_is_told_why() {
    let refused = interrupted("{\"error\":{\"code\":\"a/b\",\"message\":\"too long\"}}\n");
    assert!(
        matches!(refused, Err(CallError::Refused(ref error)) if error.message == "too long"),
        "{refused:?}"
    );
    // What answers less than the whole question is no answer to it.
    for silence in ["", "{\"result\":1}\n"] {
        let gone = interrupted(silence);
        assert!(matches!(gone, Err(CallError::Unreachable(_))), "{gone:?}");
    }
}

#[test]
fn an_answer_may_be_null_and_say_more_than_is_known() {
    let null = ask(
        &["{\"result\":null,\"since\":\"later\"}\n"],
        Duration::ZERO,
        SOON,
    );
    assert_eq!(null.unwrap(), Value::Null);
    let bare = ask(&["{\"error\":{}}\n"], Duration::ZERO, SOON);
    assert!(matches!(bare, Err(CallError::Refused(_))), "{bare:?}");
}

#[test]
fn a_server_that_takes_nobody_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let kind = (AddressFamily::Unix, SockType::Stream);
    let listener = socket::socket(kind.0, kind.1, SockFlag::empty(), None).unwrap();
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    socket::listen(&listener, socket::Backlog::new(1).unwrap()).unwrap();
    let deadline = Duration::from_millis(100);
    let client = Client::new(&path, deadline);
    // The first ones wait in its queue.
    let asked: Vec<_> = (0..4).map(|_| client.begin("m", Value::Null)).collect();
    let last = asked.into_iter().next_back().unwrap();
    assert!(
        matches!(last, Err(CallError::Deadline(it)) if it == deadline),
        "{last:?}"
    );
}

#[test]
fn a_call_has_its_own_method_and_type_of_answer() {
    let (folder, server) = answer(&["{\"result\":7}\n"], Duration::ZERO);
    let wrong = Client::new(&folder.path().join("s"), SOON).call(&StatusParams {});
    let Err(CallError::Malformed(why)) = wrong else {
        panic!("{wrong:?}");
    };
    assert!(why.starts_with("cni.status: "), "{why}");
    assert_eq!(
        server.join().unwrap(),
        "{\"method\":\"cni.status\",\"params\":{}}\n"
    );
}

#[test]
fn answers_end_with_their_end_and_may_be_waited_for() {
    let (folder, server) = answer(
        &["{\"result\":1}\n{\"result\":2}\n", "{\"end\":true}\n"],
        Duration::from_millis(60),
    );
    let client = Client::new(&folder.path().join("s"), Duration::from_millis(10));
    let mut answers = client.begin("observe", Value::Null).unwrap();
    answers.wait_forever();
    let mut got = Vec::new();
    while let Some(line) = answers.next_line().unwrap() {
        got.push(line);
    }
    assert_eq!(got, [1, 2]);
    server.join().unwrap();
    let mut rest = Vec::new();
    answers.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
