//! The forms that values have where they are written, in one line and over several.

use super::super::*;
use proptest::prelude::*;
use serde_json::json;

/// Strips each text once and twice.
fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        let once = Stripper::default().text(text);
        assert_eq!(once, *expected, "{text}");
        assert_eq!(Stripper::default().text(&once), *expected, "twice");
    }
}

#[test]
fn values_in_the_forms_of_languages_are_stripped_to_their_end() {
    check(&[
        (
            r#"Config { password: Some("hunter2") }"#,
            r#"Config { password: Some("(stripped)") }"#,
        ),
        (
            r#"a token: Secret("x") b"#,
            r#"a token: Secret("(stripped)") b"#,
        ),
        (
            "password=SecretStr('x'), n=1",
            "password=SecretStr('(stripped)'), n=1",
        ),
        (r#"password: b"x" n"#, r#"password: b"(stripped)" n"#),
        (r##"token: r#"x"# n"##, r##"token: r#"(stripped)"# n"##),
        (
            r#"{"msg":"Config { password: Some(\"hunter2\"), n: 1 }"}"#,
            r#"{"msg":"Config { password: Some(\"(stripped)\"), n: 1 }"}"#,
        ),
        (
            r#"{"msg":"password: b\"hunter2\", n"}"#,
            r#"{"msg":"password: b\"(stripped)\", n"}"#,
        ),
        (
            r#"token: Some(Secret("a b")), n: 1"#,
            "token: Some((stripped)), n: 1",
        ),
        (
            r#"A { token: Secret { inner: "a b" }, n: 1 }"#,
            "A { token: Secret { (stripped) }, n: 1 }",
        ),
        (
            "A { password: Some([104, 117]) }",
            "A { password: Some((stripped)) }",
        ),
        (
            "A {\n    password: Some(\n        \"hunter2\",\n    ),\n    n: 1,\n}",
            "A {\n    password: (stripped)\n    ),\n    n: 1,\n}",
        ),
    ]);
}

#[test]
fn a_secret_ends_where_the_next_name_begins() {
    check(&[
        ("DB_PASSWORD=p@ss;w0rd", "DB_PASSWORD=(stripped)"),
        ("DB_PASSWORD=a,b c", "DB_PASSWORD=(stripped) c"),
        ("DB_PASSWORD=a&b;", "DB_PASSWORD=(stripped);"),
        ("password=a]b}c} d", "password=(stripped)} d"),
        ("token=a&b&n=1;x", "token=(stripped)&n=1;x"),
        ("{password:a,b,user:joe}", "{password:(stripped),user:joe}"),
        (
            "password=a, b; token=c",
            "password=(stripped), b; token=(stripped)",
        ),
        (
            "passphrase: correct horse battery staple\nnext",
            "passphrase: (stripped)\nnext",
        ),
        (
            "  - db-password: a b, c: d\r\nn",
            "  - db-password: (stripped)\r\nn",
        ),
        (
            "pass: hunter2\npwd: a b",
            "pass: (stripped)\npwd: (stripped)",
        ),
        ("pass: 3\npwd: /root", "pass: 3\npwd: /root"),
    ]);
}

#[test]
fn values_on_following_lines_are_stripped_with_their_name() {
    check(&[
        (
            "password: |\n  a b\n\n  c\nuser: joe",
            "password: |\n  (stripped)\n\nuser: joe",
        ),
        (
            "- password: >-\n    a b\n    c\n- n",
            "- password: >-\n    (stripped)\n- n",
        ),
        (
            "  token: !!binary |2+ # x\n    a\n  n: 1",
            "  token: !!binary |2+ # x\n    (stripped)\n  n: 1",
        ),
        ("password:\n  a\n  b\nn: 1", "password:\n  (stripped)\nn: 1"),
        ("password: a\n  b\nn: 1", "password: (stripped)\nn: 1"),
        ("tokens:\n- abc\n- def\nn: 1", "tokens:\n- (stripped)\nn: 1"),
        (
            "tokens:\n  - abc\n  - def\nn: 1",
            "tokens:\n  - (stripped)\nn: 1",
        ),
        (
            "x {\n\"tokens\": [\n\"abc\"\n],\n\"n\": 1}",
            "x {\n\"tokens\": [\n\"(stripped)\"\n],\n\"n\": 1}",
        ),
        (
            "password: \"line1\nline2\" n=1\nnext",
            "password: \"(stripped)\" n=1\nnext",
        ),
        (
            "a password: 'line1\nline2'\ntoken=x",
            "a password: '(stripped)'\ntoken=(stripped)",
        ),
        (
            "\"password\":\n  \"a\"\nn",
            "\"password\":\n  (stripped)\nn",
        ),
    ]);
}

#[test]
fn a_value_that_never_ends_takes_no_more_than_belongs_to_it() {
    let lines = "level=info n=1\n".repeat(80);
    for (first, expected) in [
        ("password: \"abc\n", "password: \"(stripped)\n"),
        ("tokens: [\"abc\n", "tokens: [(stripped)\n"),
    ] {
        check(&[(&format!("{first}{lines}"), &format!("{expected}{lines}"))]);
    }
    let items = "  \"abc\",\n".repeat(80);
    check(&[(
        &format!("x\n\"tokens\": [\n{items}], n"),
        "x\n\"tokens\": [\n  (stripped)\n], n",
    )]);
}

#[test]
fn pairs_flags_and_addresses_are_known_by_their_form() {
    check(&[
        (
            r#"applied {"name":"DB_PASSWORD","value":"hunter2"}"#,
            r#"applied {"name":"DB_PASSWORD","value":"(stripped)"}"#,
        ),
        (
            r#"applied {"value":"hunter2","name":"DB_PASSWORD"}"#,
            r#"applied {"value":"(stripped)","name":"DB_PASSWORD"}"#,
        ),
        (
            r#"m="{\"name\": \"DB_PASSWORD\", \"value\": \"hunter2\"}""#,
            r#"m="{\"name\": \"DB_PASSWORD\", \"value\": \"(stripped)\"}""#,
        ),
        (
            "EnvVar{Name:DB_PASSWORD,Value:a,b,From:nil,}",
            "EnvVar{Name:DB_PASSWORD,Value:(stripped),From:nil,}",
        ),
        (
            "- name: DB_PASSWORD\n  value: hunter2\n- name: A\n  value: b",
            "- name: DB_PASSWORD\n  value: (stripped)\n- name: A\n  value: b",
        ),
        (
            "- name: DB_PASSWORD\n  value: |\n    a\n- name: A",
            "- name: DB_PASSWORD\n  value: |\n    (stripped)\n- name: A",
        ),
        (
            r#"run ["--password","hunter2","-v"]"#,
            r#"run ["--password","(stripped)","-v"]"#,
        ),
        (
            "x --password hunter2 --token 'a b' -v",
            "x --password (stripped) --token '(stripped)' -v",
        ),
        (
            "x [--db-pass a --tokens 20 --token-file f]",
            "x [--db-pass (stripped) --tokens 20 --token-file f]",
        ),
        ("x --password --verbose", "x --password --verbose"),
        (
            "x\n[\"--password\",\n \"hunter2\"]",
            "x\n[\"--password\",\n (stripped)",
        ),
        (
            "x {\n  \"name\": \"DB_PASSWORD\",\n  \"value\": \"hunter2\"\n}",
            "x {\n  \"name\": \"DB_PASSWORD\",\n  \"value\": \"(stripped)\"\n}",
        ),
        (
            "- --password\n- hunter2\n- -v",
            "- --password\n- (stripped)\n- -v",
        ),
        ("postgres://app:p/w0rd@db x", "postgres://(stripped)@db x"),
        ("\"postgres://app:p?w@db\"", "\"postgres://(stripped)@db\""),
        ("postgres://app:p@s/w@db/x", "postgres://(stripped)@db/x"),
        ("http://a/b?email=x@y", "http://a/b?email=x@y"),
        ("http://a:80/b?email=x@y", "http://a:80/b?email=x@y"),
        ("http://[fd00::1]:80/x@y", "http://[fd00::1]:80/x@y"),
        (
            "http://u:p@a:80/b?email=x@y",
            "http://(stripped)@a:80/b?email=x@y",
        ),
        (
            "dsn=app:hunter2@tcp(db:3306)/x",
            "dsn=(stripped)@tcp(db:3306)/x",
        ),
        ("use 'app:p@s/w@unix(/s)/x'", "use '(stripped)@unix(/s)/x'"),
        ("mail joe@tcp(x)", "mail joe@tcp(x)"),
    ]);
}

#[test]
fn annotations_that_repeat_objects_and_packed_texts_are_replaced_whole() {
    let long = "A".repeat(80);
    let mut object = json!({"metadata": {"annotations": {
        "objectset.rio.cattle.io/applied": "x",
        "example.com/last-applied": "{}",
        "example.com/original": "x",
        "example.com/a": format!("H4sI{long}"),
        "example.com/b": format!("UEsD{long}=="),
        "example.com/c": format!("eyJhbGciOiJIUzI1NiJ9.{long}.{long}"),
        "example.com/d": "eyJ short",
    }}});
    Stripper::default().object(&mut object);
    let expected = json!({
        "objectset.rio.cattle.io/applied": STRIPPED,
        "example.com/last-applied": STRIPPED,
        "example.com/original": STRIPPED,
        "example.com/a": STRIPPED,
        "example.com/b": STRIPPED,
        "example.com/c": STRIPPED,
        "example.com/d": "eyJ short",
    });
    assert_eq!(object["metadata"]["annotations"], expected);
    check(&[(&format!("got eyJ{long}.{long} x"), "got (stripped) x")]);
}

#[test]
fn a_lone_mark_of_a_key_takes_its_own_line_only() {
    check(&[
        (
            "a b\nno -----BEGIN PRIVATE KEY----- in file\nc d\nlevel: info",
            "a b\nno (stripped)\nc d\nlevel: info",
        ),
        (
            "a b\nno -----END PRIVATE KEY----- in file\nc d",
            "a b\n(stripped)\nc d",
        ),
        (
            "a b\n-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES\n\nQUFB\nc d\ne f",
            "a b\n(stripped)\nc d\ne f",
        ),
        (
            "a b\nProc-Type: 4\nQUFB\n-----END RSA PRIVATE KEY-----\nc",
            "a b\n(stripped)\nc",
        ),
        (
            "a b\nx | -----BEGIN PRIVATE KEY-----\nx | QUFB\nx | -----END PRIVATE KEY-----\nc",
            "a b\nx | (stripped)\nc",
        ),
        (
            "key \"-----BEGIN PRIVATE KEY-----\\nQUFB\\n-----END PRIVATE KEY-----\\n\"\nc d",
            "key \"(stripped)\nc d",
        ),
    ]);
}

#[test]
fn lines_that_leave_something_open_are_read_in_time() {
    for part in [
        "token: \"\n",
        "tokens: [\n",
        "://a:",
        "a:@b(",
        "--token,",
        "value:\"",
        "password=a,",
        "-----END PRIVATE KEY-----\nQUFB\n",
        "token: Some(",
        "eyJ.",
        "\"name\":\"token\",",
    ] {
        let text = part.repeat(200_000 / part.len());
        let _ = Stripper::default().text(&text);
    }
}

proptest! {
    #[test]
    fn a_secret_survives_in_no_form(secret in "[A-Za-z0-9]{8,20}", form in 0_usize..13) {
        let text = match form {
            0 => format!("a password=\"{secret}\" b"),
            1 => format!("A {{ password: Some(\"{secret}\") }}"),
            2 => format!("password: b\"{secret}\""),
            3 => format!("a DB_PASSWORD={secret} b"),
            4 => format!("password: {secret}\nb"),
            5 => format!("password: |\n  {secret}\n  {secret}\nb"),
            6 => format!("x {{\"name\":\"DB_PASSWORD\",\"value\":\"{secret}\"}}"),
            7 => format!("x {{\"password\":\"{secret}\",\"n\":1}}"),
            8 => format!("tokens:\n- {secret}\n- {secret}"),
            9 => format!("x [\"--token\",\"{secret}\"]"),
            10 => format!("a postgres://joe:{secret}/{secret}@db b"),
            11 => format!("password: \"{secret}\n{secret}\" b"),
            _ => format!("DB_PASSWORD={secret};{secret},{secret}&{secret}"),
        };
        let once = Stripper::default().text(&text);
        prop_assert!(!once.contains(&secret), "{}", once);
        prop_assert_eq!(Stripper::default().text(&once), once);
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_several_lines_is_read(
        parts in proptest::collection::vec(
            "password|tokens|--token|name|value|: |Some|Secret|://|@|@tcp|eyJ|\n|\n  |\n- |-----BEGIN PRIVATE KEY-----|-----END PRIVATE KEY-----|QUFB|[\"'\\\\ \\[\\]{}():=,;&|>a9ü-]",
            0..40,
        ),
    ) {
        let text = parts.concat();
        Stripper::default().texts(&mut json!(text));
        let _ = Stripper::default().text(&Stripper::default().text(&text));
    }
}
