//! What the crates offer and test: public items, test functions, commands. `features` looks names up here.

use crate::rust_file::RustFile;
use crate::workspace::Workspace;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::Visit;

/// Everything that a row of the table may name, per crate.
#[derive(Default)]
pub(super) struct Index {
    crates: BTreeMap<String, Crate>,
    files: BTreeSet<String>,
}

#[derive(Default)]
struct Crate {
    /// `name`, and `Type::name` for what belongs to a type.
    items: BTreeSet<String>,
    /// Path and text of each file, for tests that macros make.
    sources: Vec<(String, String)>,
}

impl Index {
    /// Reads all crates of the workspace.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let mut index = Self::default();
        let files: Vec<String> = workspace.files()?.iter().map(|file| workspace.relative(file)).collect();
        for package in workspace.members() {
            let folder = format!("{}/", workspace.relative(package.folder()));
            let name = package.name.replace('-', "_");
            for path in files.iter().filter(|path| path.starts_with(&folder) && path.ends_with(".rs")) {
                index.add(&name, path, &std::fs::read_to_string(workspace.root.join(path))?);
            }
        }
        index.files.extend(files);
        Ok(index)
    }

    /// Adds one file. A file that does not parse adds its text only; `tidy` complains about it.
    pub(super) fn add(&mut self, name: &str, path: &str, text: &str) {
        let entry = self.crates.entry(name.to_owned()).or_default();
        entry.sources.push((path.to_owned(), text.to_owned()));
        if let Ok(file) = RustFile::parse(path, text) {
            Items { found: &mut entry.items }.visit_file(&file.syntax);
        }
    }

    /// Why the item that a row names is none, or `None` when it is there.
    pub(super) fn item_problem(&self, item: &str) -> Option<String> {
        if let Some(command) = item.strip_prefix("sinew ") {
            let name = command.split_whitespace().next().unwrap_or_default();
            let known = self.crates.get("sinew_cli").is_some_and(|cli| declares(cli, name));
            return (!known).then(|| format!("the command `{item}` is not in the crate cli"));
        }
        if item.contains('/') || item.ends_with(".md") {
            return (!self.files.contains(item)).then(|| format!("the file {item} does not exist"));
        }
        let Some((owner, path)) = item.split_once("::") else {
            return Some(format!("`{item}` is not of the form crate::item"));
        };
        let segments: Vec<&str> = path.split("::").collect();
        let wanted = match segments[..] {
            [.., owner, name] if owner.starts_with(char::is_uppercase) => format!("{owner}::{name}"),
            [.., name] => name.to_owned(),
            [] => String::new(),
        };
        let known = self.searched(owner).any(|krate| krate.items.contains(&wanted));
        (!known).then(|| format!("no public item `{item}`"))
    }

    /// The crate itself; for the facade, all of ours, as it only re-exports.
    fn searched<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Crate> {
        let chosen = self.crates.iter().filter(move |(name, _)| *name == owner || owner == "sinew");
        chosen.map(|(_, krate)| krate)
    }

    /// Why the test that a row names is none, or `None` when it is there.
    pub(super) fn test_problem(&self, test: &str) -> Option<String> {
        if test.contains('/') {
            return (!self.files.contains(test)).then(|| format!("the script {test} does not exist"));
        }
        let segments: Vec<&str> = test.split("::").collect();
        let [owner, middle @ .., name] = &segments[..] else {
            return Some(format!("`{test}` is not of the form crate::file::test_name"));
        };
        let Some(krate) = self.crates.get(*owner) else {
            return Some(format!("`{test}`: no crate is called {owner}"));
        };
        let known = krate.sources.iter().any(|(path, text)| holds_test(path, text, middle, name));
        (!known).then(|| format!("no test `{test}`"))
    }
}

/// Whether the file holds a function of that name and each named segment is in its path or one of its modules.
fn holds_test(path: &str, text: &str, middle: &[&str], name: &str) -> bool {
    let declared = text.contains(&format!("fn {name}("));
    let placed = middle.iter().all(|segment| {
        let as_folder = format!("/{segment}/");
        let as_file = format!("/{segment}.rs");
        path.contains(&as_folder) || path.ends_with(&as_file) || text.contains(&format!("mod {segment}"))
    });
    declared && placed
}

/// Whether the command crate has a word for the command: a variant or a file of that name.
fn declares(cli: &Crate, command: &str) -> bool {
    let mut letters = command.chars();
    let variant: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    cli.sources.iter().any(|(path, text)| {
        path.ends_with(&format!("/{command}.rs"))
            || path.contains(&format!("/{command}/"))
            || text.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == variant)
    })
}

struct Items<'a> {
    found: &'a mut BTreeSet<String>,
}

impl Items<'_> {
    fn add(&mut self, visibility: &syn::Visibility, name: &syn::Ident) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            self.found.insert(name.to_string());
        }
    }

    fn add_use(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.add_use(&path.tree),
            syn::UseTree::Name(name) => _ = self.found.insert(name.ident.to_string()),
            syn::UseTree::Rename(name) => _ = self.found.insert(name.rename.to_string()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree)),
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Items<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Fn(item) => self.add(&item.vis, &item.sig.ident),
            syn::Item::Struct(item) => self.add(&item.vis, &item.ident),
            syn::Item::Const(item) => self.add(&item.vis, &item.ident),
            syn::Item::Static(item) => self.add(&item.vis, &item.ident),
            syn::Item::Type(item) => self.add(&item.vis, &item.ident),
            syn::Item::Mod(item) => self.add(&item.vis, &item.ident),
            syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                self.add_use(&item.tree)
            }
            syn::Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.found.insert(name.to_string());
                }
            }
            syn::Item::Enum(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                self.found.insert(item.ident.to_string());
                let variants =
                    item.variants.iter().map(|variant| format!("{}::{}", item.ident, variant.ident));
                self.found.extend(variants);
            }
            syn::Item::Trait(item) if matches!(item.vis, syn::Visibility::Public(_)) => {
                self.found.insert(item.ident.to_string());
                for member in &item.items {
                    if let syn::TraitItem::Fn(method) = member {
                        self.found.insert(format!("{}::{}", item.ident, method.sig.ident));
                    }
                }
            }
            syn::Item::Impl(item) => self.add_impl(item),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }
}

impl Items<'_> {
    fn add_impl(&mut self, item: &syn::ItemImpl) {
        let syn::Type::Path(path) = &*item.self_ty else { return };
        let Some(owner) = path.path.segments.last() else { return };
        for member in &item.items {
            let (visibility, name) = match member {
                syn::ImplItem::Fn(method) => (&method.vis, &method.sig.ident),
                syn::ImplItem::Const(constant) => (&constant.vis, &constant.ident),
                _ => continue,
            };
            if item.trait_.is_some() || matches!(visibility, syn::Visibility::Public(_)) {
                self.found.insert(format!("{}::{name}", owner.ident));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        index.add(
            "sinew_engine",
            "crates/engine/src/endpoint.rs",
            "pub struct Endpoint; impl Endpoint { pub fn send(&self) {} fn hidden(&self) {} } pub enum E { A } struct Private;\n#[cfg(test)] mod tests { #[test] fn a_promise() {} }",
        );
        index.add("sinew_cli", "crates/cli/src/main.rs", "enum Command { Perf }");
        index.files.insert("tests/run.sh".to_owned());
        index
    }

    #[test]
    fn public_items_are_found_and_private_ones_are_not() {
        let index = index();
        for item in [
            "sinew_engine::Endpoint",
            "sinew_engine::Endpoint::send",
            "sinew::Endpoint::send",
            "sinew_engine::E::A",
            "sinew perf",
            "tests/run.sh",
        ] {
            assert_eq!(index.item_problem(item), None);
        }
        for item in [
            "sinew_engine::Private",
            "sinew_engine::Endpoint::hidden",
            "sinew_base::Endpoint",
            "sinew top",
            "tests/none.sh",
            "Endpoint",
        ] {
            assert!(index.item_problem(item).is_some(), "{item}");
        }
    }

    #[test]
    fn tests_are_found_in_their_file() {
        let index = index();
        assert_eq!(index.test_problem("sinew_engine::endpoint::tests::a_promise"), None);
        assert_eq!(index.test_problem("sinew_engine::a_promise"), None);
        for test in [
            "sinew_engine::endpoint::b_promise",
            "sinew_engine::other::a_promise",
            "sinew_none::a_promise",
            "a_promise",
            "tests/none.sh",
        ] {
            assert!(index.test_problem(test).is_some(), "{test}");
        }
    }
}
