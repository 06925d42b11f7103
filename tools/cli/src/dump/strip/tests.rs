//! What is taken out of objects and texts, and what stays.

use super::*;
use serde_json::json;

mod forms;

#[test]
fn secrets_are_found_in_texts_by_their_looks_and_nothing_else_is_touched() {
    for (text, expected) in [
        ("password=hunter2 user=joe", "password=(stripped) user=joe"),
        ("DB_PASSWORD: 'two words' x", "DB_PASSWORD: '(stripped)' x"),
        (
            r#"{"api-key":"abc","n":1}"#,
            r#"{"api-key":"(stripped)","n":1}"#,
        ),
        (
            r#"{\"password\":\"hunter2\",\"n\":1} token=\"abc\" x"#,
            r#"{\"password\":\"(stripped)\",\"n\":1} token=\"(stripped)\" x"#,
        ),
        (
            "Authorization: Bearer abc.def-123\nnext",
            "Authorization: (stripped)\nnext",
        ),
        (
            "got Bearer abcdefgh12, retry",
            "got Bearer (stripped), retry",
        ),
        ("https://joe:pw@host:1/x?y", "https://(stripped)@host:1/x?y"),
        (
            "token = abc; token=def",
            "token = (stripped); token=(stripped)",
        ),
        (
            "QUFB\nQkJC==\n-----END PRIVATE KEY-----\nb",
            "(stripped)\nb",
        ),
        (
            "| DEK-Info: AES\n| QUFB\n| -----END RSA PRIVATE KEY-----\nb",
            "(stripped)\nb",
        ),
        (
            "a\n-----END CERTIFICATE----------BEGIN PRIVATE KEY-----\nQUFB\n-----END PRIVATE KEY-----\nb",
            "a\n-----END CERTIFICATE-----(stripped)\nb",
        ),
        (
            "a\n-----BEGIN EC PRIVATE KEY-----\nQUFB\n-----END EC PRIVATE KEY----------BEGIN PRIVATE KEY-----\nQkJC\n-----END PRIVATE KEY-----\nb",
            "a\n(stripped)\nb",
        ),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nQUFB\n-----END PGP PRIVATE KEY BLOCK-----\nb",
            "(stripped)\nb",
        ),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
            "a\n(stripped)\nb",
        ),
        (
            "pods of app=secret-store, cookie=9, tokens left",
            "pods of app=secret-store, cookie=9, tokens left",
        ),
        (
            "k8s:app=web 10.0.0.1:80 -> [fd00::1]:80",
            "k8s:app=web 10.0.0.1:80 -> [fd00::1]:80",
        ),
        (
            "Basic rules of the Bearer kind",
            "Basic rules of the Bearer kind",
        ),
        ("ü: password=ü", "ü: password=(stripped)"),
        ("password=", "password="),
        // What stands in quotes ends with the quote that nothing escapes, however deep it is inside others.
        (
            r#"{"password":"ab\"cdef","n":1}"#,
            r#"{"password":"(stripped)","n":1}"#,
        ),
        (
            r#"{"password":"ab\\","n":1}"#,
            r#"{"password":"(stripped)","n":1}"#,
        ),
        (
            r#"msg="{\"password\":\"ab\\\"cdef\",\"n\":1}" x"#,
            r#"msg="{\"password\":\"(stripped)\",\"n\":1}" x"#,
        ),
        (
            r#""{""password"":""hunter2"",""n"":1}""#,
            r#""{""password"":""(stripped)"",""n"":1}""#,
        ),
        (
            r#"password="" user=joe token='' x"#,
            r#"password="" user=joe token='' x"#,
        ),
        // Lists and objects.
        (
            r#"{"x-auth-token":["s3cr3t"],"n":1}"#,
            r#"{"x-auth-token":["(stripped)"],"n":1}"#,
        ),
        (
            r#"{"tokens":["a]b","c\"d"],"n":[1]}"#,
            r#"{"tokens":["(stripped)"],"n":[1]}"#,
        ),
        (
            r#"{\"tokens\": [\"a\", \"b\"]} x"#,
            r#"{\"tokens\": [\"(stripped)\"]} x"#,
        ),
        (
            "map[x-auth-token:[s3cr3t] accept:[x]]",
            "map[x-auth-token:[(stripped)] accept:[x]]",
        ),
        (
            r#"credentials={"user":"a","word":"b}"} x"#,
            r#"credentials={"(stripped)"} x"#,
        ),
        ("tokens: [a, [b], c", "tokens: [(stripped)"),
        // Names of kubeconfigs, of logins to registries, and short ones.
        (
            "    client-key-data: LS0tLS1CRUdJTiBSU0E=\n    user: joe",
            "    client-key-data: (stripped)\n    user: joe",
        ),
        (
            "key: LS0tLS1CRUdJTiBSU0E\n  QUFB\n  QkJC==\nnext line",
            "key: (stripped)\nnext line",
        ),
        (
            r#"{"reg":{"auth":"dXNlcjpwYXNz"}}"#,
            r#"{"reg":{"auth":"(stripped)"}}"#,
        ),
        ("auth: dXNlcjpwYXNz, retry", "auth: (stripped), retry"),
        (
            "auth: connection refused; auth=required",
            "auth: connection refused; auth=required",
        ),
        (
            "DB_PASS=hunter2 dbPass: x signing-key=abc",
            "DB_PASS=(stripped) dbPass: (stripped) signing-key=(stripped)",
        ),
        (
            "first pass: compiled; pass=3 bypass: on PWD=/root tokens=20",
            "first pass: compiled; pass=3 bypass: on PWD=/root tokens=20",
        ),
        ("pass=hunter2 pwd=hunter2", "pass=(stripped) pwd=(stripped)"),
        (
            "user[password]=hunter2&n=1",
            "user[password]=(stripped)&n=1",
        ),
        (":password=>\"x y\" := 1", ":password=>\"(stripped)\" := 1"),
        // Cookies, of which a line has many; a number that is called so is none.
        ("Cookie: sid=abc; theme=x\nnext", "Cookie: (stripped)\nnext"),
        ("Set-Cookie: sid=abc; Path=/", "Set-Cookie: (stripped)"),
        (
            r#"["Cookie: sid=abc; a=b","Accept: x"]"#,
            r#"["Cookie: (stripped)","Accept: x"]"#,
        ),
        (
            "curl -H 'Authorization: Bearer abc' http://host/",
            "curl -H 'Authorization: (stripped)' http://host/",
        ),
        (r#"{"cookie": 4, "n": 1}"#, r#"{"cookie": 4, "n": 1}"#),
    ] {
        let mut stripper = Stripper::default();
        let once = stripper.text(text);
        assert_eq!(once, expected);
        assert_eq!(Stripper::default().text(&once), expected, "twice");
        assert_eq!(stripper.counts.is_empty(), text == expected, "{text}");
    }
}

#[test]
fn an_object_keeps_what_networking_is_about() {
    let mut pod = json!({
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "labels": {"token": "a-label-is-no-secret"},
            "annotations": {LAST_APPLIED: "{}", "example.com/api-token": "abc", "note": "password=x", "heddle.dev/policy-audit": "true"},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{
                "name": "c", "image": "i", "command": ["sh"], "args": ["-c", "curl -H 'X: y'"],
                "env": [{"name": "A", "value": "b"}, {"name": "R", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": "h"}]}},
                "livenessProbe": {"exec": {"command": ["cat"]}},
                "ports": [{"containerPort": 80}],
            }],
        },
        "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"message": "exec: token=abc failed"}]},
    });
    Stripper::default().object(&mut pod);
    assert_eq!(
        pod,
        json!({
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "labels": {"token": "a-label-is-no-secret"},
                "annotations": {"example.com/api-token": STRIPPED, "note": "password=(stripped)", "heddle.dev/policy-audit": "true"},
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{
                    "name": "c", "image": "i", "command": [STRIPPED], "args": [STRIPPED],
                    "env": [{"name": "A", "value": STRIPPED}, {"name": "R", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": STRIPPED}]}},
                    "livenessProbe": {"exec": {"command": [STRIPPED]}},
                    "ports": [{"containerPort": 80}],
                }],
            },
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"message": "exec: token=(stripped) failed"}]},
        })
    );
}

#[test]
fn templates_policies_secrets_settings_and_flows_are_stripped_too() {
    let mut deployment = json!({"spec": {"selector": {"matchLabels": {"secret": "a"}}, "template": {
        "metadata": {"annotations": {LAST_APPLIED: "{}"}, "labels": {"secret": "a"}},
        "spec": {"initContainers": [{"env": [{"name": "A", "value": "b"}]}]},
    }}});
    Stripper::default().object(&mut deployment);
    assert_eq!(
        deployment,
        json!({"spec": {"selector": {"matchLabels": {"secret": "a"}}, "template": {
            "metadata": {"annotations": {}, "labels": {"secret": "a"}},
            "spec": {"initContainers": [{"env": [{"name": "A", "value": STRIPPED}]}]},
        }}})
    );

    let rules = |token: &str| {
        json!({"spec": {"ingress": [{"toPorts": [{"rules": {"http": [{
            "method": "GET", "path": "/", "headers": ["X-A: b", format!("X-Token: {token}")],
            "headerMatches": [{"name": "X-Api-Key", "value": token}, {"name": "Accept", "value": "x"}],
        }]}}]}]}})
    };
    let mut policy = rules("abc");
    Stripper::default().object(&mut policy);
    assert_eq!(policy, rules(STRIPPED));

    let mut secret = json!({"kind": "Secret", "data": {"k": "dg=="}, "stringData": {"l": "v"}});
    Stripper::default().object(&mut secret);
    assert_eq!(secret["data"]["k"], STRIPPED);
    assert_eq!(secret["stringData"]["l"], STRIPPED);

    let mut settings =
        json!({"cni": {"plugins": [{"type": "x", "authToken": "t"}]}, "fabric": "vxlan"});
    Stripper::default().settings(&mut settings);
    assert_eq!(
        settings,
        json!({"cni": {"plugins": [{"type": "x", "authToken": STRIPPED}]}, "fabric": "vxlan"})
    );

    let mut flow = json!({"flow": {"verdict": "FORWARDED", "l7": {"http": {
        "url": "http://u:p@h/x?token=1", "headers": [{"key": "Cookie", "value": "c"}]}}}});
    let mut stripper = Stripper::default();
    stripper.flow(&mut flow);
    assert_eq!(
        flow["flow"]["l7"]["http"]["url"],
        "http://(stripped)@h/x?(stripped)"
    );
    assert_eq!(flow["flow"]["l7"]["http"]["headers"][0]["value"], STRIPPED);
    assert_eq!(stripper.into_counts().len(), 3);
}

#[test]
fn probes_keep_their_paths_without_queries_and_users() {
    let pod = |path: &str, host: &str| {
        json!({"kind": "Pod", "spec": {"containers": [{
            "name": "c",
            "readinessProbe": {"httpGet": {"port": 80, "path": path, "host": host}},
            "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": path, "host": host}}},
        }]}})
    };
    for (path, host, stripped_path, stripped_host) in [
        (
            "/healthz?token=s3cr3t&n=1",
            "10.0.0.1",
            "/healthz?(stripped)",
            "10.0.0.1",
        ),
        (
            "//joe:s3cr3t@web/x",
            "joe:s3cr3t@10.0.0.1",
            "//(stripped)@web/x",
            "(stripped)@10.0.0.1",
        ),
        (
            "http://joe:s3cr3t@web/x",
            "web",
            "http://(stripped)@web/x",
            "web",
        ),
        ("/token=s3cr3t/@x", "web", "/token=(stripped)", "web"),
        ("/healthz", "web", "/healthz", "web"),
    ] {
        let mut found = pod(path, host);
        Stripper::default().object(&mut found);
        let expected = pod(stripped_path, stripped_host);
        assert_eq!(found, expected, "{path} {host}");
        let mut twice = Stripper::default();
        twice.object(&mut found);
        assert_eq!((found, twice.total()), (expected, 0), "twice");
    }
}

#[test]
fn annotations_that_are_json_are_stripped_as_objects_are() {
    let whole = |password: &str, data: &str| {
        json!({
            "kind": "Deployment",
            "metadata": {"labels": {"token": "a-label"}},
            "spec": {"template": {"spec": {"containers": [{
                "name": "c", "env": [{"name": "DB_PASSWORD", "value": password}],
            }]}}},
            "extra": [{"kind": "Secret", "data": {"k": data}}],
        })
    };
    for (text, expected) in [
        (
            whole("hunter2", "dg==").to_string(),
            whole(STRIPPED, STRIPPED).to_string(),
        ),
        (
            r#"[{"name":"DB_PASSWORD","value":"hunter2"},{"name":"A","value":"b"}]"#.to_owned(),
            r#"[{"name":"DB_PASSWORD","value":"(stripped)"},{"name":"A","value":"b"}]"#.to_owned(),
        ),
        (
            r#"{"auths":{"reg":{"auth":"dXNlcjpwYXNz"}},"tokens":["a"],"password":7}"#.to_owned(),
            r#"{"auths":{"reg":{"auth":"(stripped)"}},"password":"(stripped)","tokens":["(stripped)"]}"#
                .to_owned(),
        ),
        // JSON in JSON.
        (
            json!({"a": r#"{"name":"x-token","value":"b"}"#}).to_string(),
            json!({"a": r#"{"name":"x-token","value":"(stripped)"}"#}).to_string(),
        ),
        // What hides behind a second key of the same name is not parsed, and looks like what it is.
        (
            r#"{"a":{"password":"x"},"a":1}"#.to_owned(),
            r#"{"a":{"password":"(stripped)"},"a":1}"#.to_owned(),
        ),
        // Nothing to take out: as it was.
        (r#"{ "b": 1, "a": 2 }"#.to_owned(), r#"{ "b": 1, "a": 2 }"#.to_owned()),
        (
            r#"{"name":"DB_PASSWORD","value":"#.to_owned(),
            r#"{"name":"DB_PASSWORD","value":"#.to_owned(),
        ),
    ] {
        let mut object = json!({"metadata": {"annotations": {"kapp.k14s.io/original": text}}});
        Stripper::default().object(&mut object);
        let found = &object["metadata"]["annotations"]["kapp.k14s.io/original"];
        assert_eq!(*found, json!(expected), "{text}");
    }
}

#[test]
fn a_specification_loses_what_its_names_say_and_keeps_labels_references_and_images() {
    let spec = |secret: &str, header: &str| {
        json!({"kind": "Pod", "spec": {
            "nodeSelector": {"token": "a-label"},
            "imagePullSecrets": [{"name": "login"}],
            "automountServiceAccountToken": true,
            "containers": [{
                "name": "c", "image": "registry:5000/token:v1",
                "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}],
            }],
            "volumes": [
                {"name": "f", "flexVolume": {"driver": "d", "options": {"password": secret, "share": "x"}}},
                {"name": "c", "csi": {"driver": "d", "volumeAttributes": {"token": secret, "n": "1"}}},
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
            "endpointSelector": {"matchLabels": {"secret": "a"}},
            "ingress": [{
                "fromEndpoints": [{"matchLabels": {"k8s:token": "a"}, "matchExpressions": [{"key": "secret", "values": ["a"]}]}],
                "toPorts": [{"rules": {"http": [{"headers": [header, "X-A: b"]}]}}],
            }],
        }})
    };
    let mut found = spec("s3cr3t", "Cookie: sid=abc; a=b");
    Stripper::default().object(&mut found);
    assert_eq!(found, spec(STRIPPED, "Cookie: (stripped)"));
}

#[test]
fn labels_in_a_status_stay() {
    let mut endpoint = json!({"kind": "CiliumEndpoint", "status": {
        "identity": {"id": 7, "labels": ["k8s:token=a"]}, "message": "token=a",
    }});
    Stripper::default().object(&mut endpoint);
    assert_eq!(
        endpoint["status"]["identity"]["labels"],
        json!(["k8s:token=a"])
    );
    assert_eq!(endpoint["status"]["message"], "token=(stripped)");
}

#[test]
fn a_line_of_a_million_names_without_values_is_read_in_time() {
    for part in ["auth:", "tokens=[]", "cookie=9:", "password=\"\"", "pass:["] {
        let text = part.repeat(1_000_000 / part.len());
        let _ = Stripper::default().text(&text);
    }
}

proptest::proptest! {
    #[test]
    fn whatever_stands_in_a_line_is_read(
        parts in proptest::collection::vec("token|cookie|auth|pass|Authorization|://|@|LS0tLS1CRUdJTi|\\\\n|[\"'\\\\ \\[\\]{}:=,;a9ü]", 0..40),
    ) {
        let text = parts.concat();
        Stripper::default().texts(&mut json!(text));
        let _ = Stripper::default().text(&Stripper::default().text(&text));
    }
}
