//! The echo server over loopback.

use super::*;

/// Serves TCP on a free port of each family's loopback.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = Arc::new(Identity {
        pod: "default/web".into(),
        node: "node-1".into(),
    });
    tokio::spawn(accept(listener, identity, Arc::new(Semaphore::new(64))));
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn http_names_pod_node_and_peer() {
    let address = server().await;
    let answer = ask(address, &get("/hello")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("X-Pod: default/web") && head.contains("X-Node: node-1"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["pod"], &body["node"], &body["peer"]),
        (
            &serde_json::json!("default/web"),
            &serde_json::json!("node-1"),
            &serde_json::json!("127.0.0.1"),
        )
    );
}

#[tokio::test]
async fn status_and_bytes_give_what_was_asked() {
    let address = server().await;
    assert!(
        ask(address, &get("/status/503"))
            .await
            .starts_with("HTTP/1.1 503 ")
    );
    assert!(
        ask(address, &get("/status/99"))
            .await
            .starts_with("HTTP/1.1 400 ")
    );
    let answer = ask(address, &get("/bytes?n=100000")).await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 100_000);
    let started = std::time::Instant::now();
    ask(address, &get("/slow?ms=80")).await;
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn one_connection_carries_several_requests_and_bodies() {
    let address = server().await;
    let requests = "POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nConnection: close\r\n\r\n";
    let answer = ask(address, requests).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(answer.contains("\"path\":\"/b\""));
}

#[tokio::test]
async fn other_bytes_come_back_as_they_were() {
    let address = server().await;
    for bytes in ["ping\n", "G", "GETTING there", "\0\u{1}binary"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, bytes.as_bytes());
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn datagrams_come_back() {
    let socket = UdpSocket::bind("[::1]:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(answer_datagrams(socket));
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    let sent = vec![7; 60_000];
    client.send_to(&sent, address).await.unwrap();
    let mut back = vec![0; 65_536];
    let (length, _) = client.recv_from(&mut back).await.unwrap();
    assert_eq!(&back[..length], sent);
}

#[test]
fn a_bad_request_is_not_understood() {
    assert_eq!(
        parse_request(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
        None
    );
    assert_eq!(parse_request(b"GET /\r\n\r\n"), None);
    assert_eq!(looks_like_http(b"GE"), None);
    assert_eq!(looks_like_http(b"GET / "), Some(true));
    assert_eq!(looks_like_http(b"hello"), Some(false));
}
