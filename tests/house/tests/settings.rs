//! docs/settings.md is what the code says: every setting, and every limit that is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_agent::config::AgentConfig;
use heddle_cni::PluginSettings;
use heddle_house::items::{Member, limits, members};
use heddle_house::{read, root};
use heddle_lab::config::{LabConfig, LabRecord};
use heddle_model::setting::{Configuration, Setting, defaults};
use heddle_operator::OperatorConfig;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

const PAGE: &str = "docs/settings.md";
const REGENERATE: &str = "HEDDLE_WRITE_DOCS=1 cargo test -p heddle-house --test settings";

/// Where structures and enumerations are looked for that settings are made of.
const AGENT: &[&str] = &[
    "node/agent/src/config.rs",
    "node/agent/src/config/values.rs",
    "core/policy/src/facts.rs",
    "core/policy/src/rule.rs",
];
const OPERATOR: &[&str] = &[
    "cluster/operator/src/config.rs",
    "core/ipam/src/pool/config.rs",
];
const LAB: &[&str] = &["tools/lab/src/config.rs"];
const CNI: &[&str] = &["node/cni/src/config.rs"];

#[test]
fn the_page_of_settings_is_what_the_code_says() {
    let mut page = String::from(HEAD);
    let agent = defaults::<AgentConfig>();
    section::<AgentConfig>(&mut page, "The agent", AGENT_HEAD, AGENT, &agent);
    let operator = defaults::<OperatorConfig>();
    section::<OperatorConfig>(
        &mut page,
        "The operator",
        OPERATOR_HEAD,
        OPERATOR,
        &operator,
    );
    let plugin = defaults::<PluginSettings>();
    section::<PluginSettings>(&mut page, "The CNI plugin", CNI_HEAD, CNI, &plugin);
    section::<LabConfig>(&mut page, "The lab", LAB_HEAD, LAB, &lab_defaults());
    fixed_limits(&mut page);
    if std::env::var_os("HEDDLE_WRITE_DOCS").is_some() {
        std::fs::write(root().join(PAGE), &page).unwrap();
    }
    let written = read(PAGE).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).position(|(a, b)| a != b);
    assert!(
        page == written,
        "{PAGE} is not what the code says, from line {}; write it again with\n  {REGENERATE}",
        differs.unwrap_or_else(|| page.lines().count().min(written.lines().count())) + 1,
    );
}

#[test]
fn every_field_of_a_configuration_has_a_row_and_every_metric_exists() {
    rows::<AgentConfig>("AgentConfig", AGENT);
    rows::<OperatorConfig>("OperatorConfig", OPERATOR);
    rows::<PluginSettings>("PluginSettings", CNI);
    rows::<LabConfig>("LabConfig", LAB);
    let sources = [
        "node/agent/src/metrics/mod.rs",
        "node/agent/src/metrics/kernel.rs",
        "cluster/operator/src/metrics.rs",
    ];
    let sources: String = sources.iter().map(|file| read(file).unwrap()).collect();
    let all = [
        AgentConfig::SETTINGS,
        OperatorConfig::SETTINGS,
        PluginSettings::SETTINGS,
        LabConfig::SETTINGS,
    ];
    for setting in all.into_iter().flatten() {
        let quoted = setting.metric.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| name.contains('_') && !name.contains("map_name`")) {
            let name = name.split('{').next().unwrap_or(name);
            let registered = format!("\"{}\"", name.trim_end_matches("_total"));
            let known = name == "map_name" || sources.contains(&registered);
            assert!(known, "{}: no metric is named {name}", setting.name);
        }
    }
}

/// The table and the structure have the same fields in the same order.
fn rows<C: Configuration>(name: &str, files: &[&str]) {
    let fields = members(files, name).unwrap().expect(name);
    let fields: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let rows: Vec<&str> = C::SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(rows, fields, "{name}: SETTINGS has other rows than fields");
    let all = defaults::<C>();
    for required in C::required().keys() {
        assert!(rows.contains(&required.as_str()) && !all.contains_key(required));
    }
}

/// What a lab is without a file.
fn lab_defaults() -> Map<String, Value> {
    let config = LabConfig::default();
    let record = LabRecord::new("default", config, "", "/".into(), "/".into()).unwrap();
    let Value::Object(mut made) = serde_json::to_value(&record).unwrap() else {
        panic!("a record is an object");
    };
    made.insert("nodes".to_owned(), json!(record.nodes.len()));
    made
}

fn section<C: Configuration>(
    page: &mut String,
    title: &str,
    head: &str,
    files: &[&str],
    defaults: &Map<String, Value>,
) {
    writeln!(page, "\n## {title}\n\n{head}").unwrap();
    let name = std::any::type_name::<C>().rsplit("::").next().unwrap();
    let fields = members(files, name).unwrap().expect(name);
    for (setting, field) in C::SETTINGS.iter().zip(&fields) {
        entry(page, setting, field, files, defaults.get(setting.name));
    }
}

fn entry(
    page: &mut String,
    setting: &Setting,
    field: &Member,
    files: &[&str],
    default: Option<&Value>,
) {
    let default = match default {
        None => "none, it must be given".to_owned(),
        Some(Value::Null) => "left out".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    };
    let unit = match setting.unit {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let metric = match setting.metric {
        "" => "-",
        metric => metric,
    };
    writeln!(page, "\n### `{}`\n\n{}\n", setting.name, field.doc).unwrap();
    for part in members(files, &field.of).unwrap().unwrap_or_default() {
        writeln!(page, "- `{}`: {}", part.name, part.doc).unwrap();
    }
    if page.ends_with("\n\n") {
        page.pop();
    }
    writeln!(
        page,
        "\n| Value | Default | Metric at its limit | A change takes effect |\n|---|---|---|---|\n| {}{unit} | {default} | {metric} | {} |",
        setting.values.rule(),
        setting.changed
    )
    .unwrap();
}

fn fixed_limits(page: &mut String) {
    page.push_str(LIMITS_HEAD);
    let limits = limits().unwrap();
    let mut shown = BTreeSet::new();
    for (title, folders) in PLACES {
        writeln!(
            page,
            "\n### {title}\n\n| Limit | Value | In |\n|---|---|---|"
        )
        .unwrap();
        for limit in &limits {
            if folders.iter().any(|folder| limit.file.starts_with(folder)) {
                let file = limit.file.display();
                assert!(!limit.doc.is_empty(), "{file}: {} has no words", limit.name);
                let doc = limit.doc.replace('|', "\\|");
                writeln!(
                    page,
                    "| {doc} | {} | `{}` of `{file}` |",
                    limit.value, limit.name
                )
                .unwrap();
                shown.insert((file.to_string(), &limit.name));
            }
        }
    }
    assert_eq!(shown.len(), limits.len(), "a folder has no place here");
}

const PLACES: &[(&str, &[&str])] = &[
    ("Datapath", &["bpf", "node/datapath"]),
    (
        "Policies and manifests",
        &[
            "core",
            "kube/src/policy",
            "kube/src/cluster",
            "kube/src/manifest.rs",
        ],
    ),
    (
        "Store and identities",
        &[
            "kube/src/store",
            "kube/src/identity",
            "kube/src/identity.rs",
        ],
    ),
    ("Agent", &["node/agent"]),
    ("Local sockets", &["node/rpc"]),
    ("CNI plugin", &["node/cni"]),
    ("Operator", &["cluster"]),
    ("Lab", &["tools/lab"]),
    ("Commands", &["tools/cli"]),
];

const HEAD: &str = "# Settings

Made from the code by a test (`tests/house/tests/settings.rs`), which fails when code and page differ and says how to write it again.

Configuration files are YAML with camelCase keys, read once at start: a change takes effect when the program is started again, which interrupts neither
traffic nor policy. An unknown key, a value of the wrong kind or out of its range, and a missing one that has no default end the start with
`error[config/invalid]`: the setting, its value, what it must be, and what to do.
";
const AGENT_HEAD: &str = "`heddle agent --config FILE`. Sizes of maps are what `heddle status` shows; what is not in force because it does not fit is in its `notInForce`.";
const OPERATOR_HEAD: &str = "`heddle operator --config FILE`.";
const CNI_HEAD: &str = "Keys of the plugin's own in its network configuration, beside those of the CNI specification. A key that is nearly one of them is refused with code 7.";
const LAB_HEAD: &str = "`heddle lab up --config FILE`; flags of `lab up` come before the file. What is wrong ends with `error[lab/bad-config]`.";
const LIMITS_HEAD: &str = "
## Fixed limits

What bounds queues, tables, requests and objects and is no setting: constants of the code.
";
