//! Source files, and which paths their code names.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// Folders that hold source or documents; build results and caches are elsewhere.
const FOLDERS: &[&str] = &[
    "bpf", "core", "kube", "node", "cluster", "tools", "tests", "benches", "docs", "deploy",
];

/// Every file with this extension, named from the top of the repository, sorted.
pub fn files(extension: &str) -> Result<Vec<PathBuf>> {
    let root = crate::root();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    for folder in FOLDERS {
        walk(&root.join(folder), extension, &mut found)?;
    }
    found.sort();
    found
        .into_iter()
        .map(|path| Ok(path.strip_prefix(&root)?.to_owned()))
        .collect()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "node_modules" {
                walk(&path, extension, found)?;
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// Something that code outside tests names or declares, and the line where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mention {
    /// `std::fs::read`, `println!`, `static mut`, `async fn`.
    pub what: String,
    /// Line in the file.
    pub line: usize,
}

/// What the code of a file mentions, items for tests left out.
pub fn mentions(text: &str) -> Result<Vec<Mention>> {
    let file = syn::parse_file(text).context("parse")?;
    let mut reader = Reader::default();
    reader.visit_file(&file);
    Ok(reader.found)
}

#[derive(Default)]
struct Reader {
    found: Vec<Mention>,
}

impl Reader {
    fn add(&mut self, what: String, span: proc_macro2::Span) {
        self.found.push(Mention {
            what,
            line: span.start().line,
        });
    }

    fn use_tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let joined = |ident: &syn::Ident| match prefix {
            "" => ident.to_string(),
            prefix => format!("{prefix}::{ident}"),
        };
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&joined(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(joined(&name.ident), name.ident.span()),
            syn::UseTree::Rename(rename) => self.add(joined(&rename.ident), rename.ident.span()),
            syn::UseTree::Glob(glob) => {
                self.add(format!("{prefix}::*"), glob.star_token.spans[0]);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix, tree);
                }
            }
        }
    }
}

fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .meta
                    .require_list()
                    .is_ok_and(|list| list.tokens.to_string() == "test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(token) = signature.asyncness.as_ref() {
            self.add("async fn".to_owned(), token.span);
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if matches!(item.mutability, syn::StaticMutability::Mut(_)) {
            self.add("static mut".to_owned(), item.ident.span());
        }
        visit::visit_item_static(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !for_tests(&item.attrs) {
            self.use_tree("", &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.add(names.join("::"), first.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last() {
            self.add(format!("{}!", last.ident), last.ident.span());
            // What stands inside is not parsed; its paths are still there to be read.
            for word in call.tokens.to_string().replace(" :: ", "::").split(' ') {
                if word.starts_with("std::") {
                    self.add(word.to_owned(), last.ident.span());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        mentions(text)
            .unwrap()
            .into_iter()
            .map(|mention| mention.what)
            .collect()
    }

    #[test]
    fn grouped_and_nested_imports_are_spelled_out() {
        let found = words("use std::{fs, net::{IpAddr, TcpStream}};");
        assert_eq!(
            found,
            ["std::fs", "std::net::IpAddr", "std::net::TcpStream"]
        );
    }

    #[test]
    fn code_for_tests_does_not_count() {
        let found =
            words("#[cfg(test)] mod tests { use std::fs; } #[test] fn t() { std::env::args(); }");
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn macros_statics_and_async_are_seen() {
        let found = words(
            "static mut X: u8 = 0; async fn f() { println!(\"{}\", std::env::args().count()) }",
        );
        assert!(found.contains(&"static mut".to_owned()));
        assert!(found.contains(&"async fn".to_owned()));
        assert!(found.contains(&"println!".to_owned()));
        assert!(found.iter().any(|word| word.starts_with("std::env::args")));
    }
}
