//! What source says of structures, enumerations and limits: names, documentation, values.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::{Expr, Item};

/// A field of a structure, or a variant of an enumeration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// As it is written in a file.
    pub name: String,
    /// Its documentation, on one line.
    pub doc: String,
    /// The structure or enumeration it is made of, without `Option` and `Vec`.
    pub of: String,
}

/// The members of a structure or of an enumeration without fields, if one of these files has it.
pub fn members(files: &[&str], name: &str) -> Result<Option<Vec<Member>>> {
    for file in files {
        for item in parse(Path::new(file))?.items {
            match item {
                Item::Struct(item) if item.ident == name => {
                    let rename = rename_all(&item.attrs)?;
                    let fields = item.fields.iter().map(|field| Member {
                        name: rename(
                            &field
                                .ident
                                .as_ref()
                                .map_or_else(String::new, ToString::to_string),
                        ),
                        doc: doc(&field.attrs),
                        of: innermost(&field.ty),
                    });
                    return Ok(Some(fields.collect()));
                }
                Item::Enum(item) if item.ident == name => {
                    let rename = rename_all(&item.attrs)?;
                    let variants = item.variants.iter().map(|variant| Member {
                        name: rename(&variant.ident.to_string()),
                        doc: doc(&variant.attrs),
                        of: String::new(),
                    });
                    return Ok(Some(variants.collect()));
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

/// A constant that bounds something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// The file, from the top of the repository.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// Its documentation, on one line.
    pub doc: String,
}

/// True for the name of a constant that bounds something.
pub fn is_limit(name: &str) -> bool {
    name.starts_with("MAX_")
        || name == "MOST"
        || name.starts_with("MOST_")
        || ["_LIMIT", "_SLOTS", "AT_ONCE"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// Every limit of what is shipped, in the order of files.
pub fn limits() -> Result<Vec<Limit>> {
    let mut found = Vec::new();
    let mut known = BTreeMap::new();
    for file in crate::source::files("rs")? {
        let shipped = ["bpf", "core", "kube", "node", "cluster", "tools"];
        let is_shipped = shipped.iter().any(|floor| file.starts_with(floor));
        let for_tests = ["tests", "testing", "examples"];
        let is_test = file
            .iter()
            .any(|part| for_tests.iter().any(|name| part == *name))
            || file.ends_with("tests.rs");
        if !is_shipped || is_test {
            continue;
        }
        for item in parse(&file)?.items {
            if let Item::Const(item) = item {
                found.push((file.clone(), item));
            }
        }
    }
    // A limit may be made of others, which stand in whatever file.
    for (_, item) in &found {
        if is_limit(&item.ident.to_string())
            && let Ok(value) = evaluate(&item.expr, &known)
        {
            known.insert(item.ident.to_string(), value);
        }
    }
    found
        .into_iter()
        .filter(|(_, item)| is_limit(&item.ident.to_string()))
        .map(|(file, item)| {
            let name = item.ident.to_string();
            Ok(Limit {
                value: evaluate(&item.expr, &known)
                    .with_context(|| format!("{}: {name}", file.display()))?,
                doc: doc(&item.attrs),
                file,
                name,
            })
        })
        .collect()
}

fn parse(file: &Path) -> Result<syn::File> {
    let text = crate::read(file)?;
    syn::parse_file(&text).with_context(|| file.display().to_string())
}

/// A whole number made of literals and other limits.
fn evaluate(expression: &Expr, known: &BTreeMap<String, u64>) -> Result<u64> {
    Ok(match expression {
        Expr::Lit(literal) => match &literal.lit {
            syn::Lit::Int(number) => number.base10_parse()?,
            _ => bail!("no whole number"),
        },
        Expr::Paren(inner) => evaluate(&inner.expr, known)?,
        Expr::Cast(inner) => evaluate(&inner.expr, known)?,
        Expr::Path(path) => {
            let last = path.path.segments.last().context("an empty path")?;
            let name = last.ident.to_string();
            *known
                .get(&name)
                .with_context(|| format!("{name} is no limit by its name"))?
        }
        Expr::Binary(binary) => {
            let left = evaluate(&binary.left, known)?;
            let right = evaluate(&binary.right, known)?;
            match binary.op {
                syn::BinOp::Mul(_) => left * right,
                syn::BinOp::Add(_) => left + right,
                syn::BinOp::Sub(_) => left - right,
                syn::BinOp::Shl(_) => left << right,
                _ => bail!("an operator that is not read here"),
            }
        }
        _ => bail!("an expression that is not read here"),
    })
}

/// Paragraphs and lines of a documentation in one, links without their brackets.
fn doc(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match (&pair.value, pair.path.is_ident("doc")) {
            (Expr::Lit(literal), true) => match &literal.lit {
                syn::Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        }
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    text.replace("[`", "`").replace("`]", "`").trim().to_owned()
}

fn innermost(of: &syn::Type) -> String {
    let syn::Type::Path(path) = of else {
        return String::new();
    };
    let Some(last) = path.path.segments.last() else {
        return String::new();
    };
    if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments
        && (last.ident == "Option" || last.ident == "Vec")
        && let Some(syn::GenericArgument::Type(inner)) = arguments.args.first()
    {
        return innermost(inner);
    }
    last.ident.to_string()
}

/// What serde makes of a member's name.
fn rename_all(attributes: &[syn::Attribute]) -> Result<fn(&str) -> String> {
    let text: String = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
        .filter_map(|attribute| Some(attribute.meta.require_list().ok()?.tokens.to_string()))
        .collect();
    let rule = text
        .split_once("rename_all = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(rule, _)| rule);
    Ok(match rule {
        None => str::to_owned,
        Some("camelCase") => camel_case,
        Some("lowercase") => str::to_lowercase,
        Some("UPPERCASE") => str::to_uppercase,
        Some(other) => bail!("rename_all = {other:?} is not read here"),
    })
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        whole.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        whole.push_str(letters.as_str());
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_computed_and_names_are_as_serde_writes_them() {
        let known = BTreeMap::from([("MAX_ENDPOINTS".to_owned(), 4096)]);
        for (text, value) in [
            ("131_072", 131_072),
            ("(1 << 24) - 2", 16_777_214),
            ("2 * crate::MAX_ENDPOINTS", 8192),
            ("(HALF_LIMIT + 1) as u64", 0),
        ] {
            let parsed = syn::parse_str(text).unwrap();
            assert_eq!(evaluate(&parsed, &known).unwrap_or(0), value, "{text}");
        }
        assert_eq!(camel_case("max_policy_cidrs"), "maxPolicyCidrs");
        assert!(is_limit("MOST_NAMES") && is_limit("INPUT_LIMIT") && !is_limit("LIMIT_INTERVAL"));
    }
}
