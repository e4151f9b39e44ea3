//! One parsed Rust file and the facts that the rules are about: spans, functions, modules, `unsafe`.
//!
//! Called by `tidy`, `layers` and `features`. It states facts and judges nothing.

use anyhow::{Context as _, Result};
use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// A file of Rust source.
pub(crate) struct RustFile {
    /// Relative to the root of the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// A function, method or provided trait method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// A `mod name;` and where its file may stand.
pub(crate) struct ModuleFile {
    pub(crate) candidates: Vec<PathBuf>,
}

impl RustFile {
    /// Reads and parses.
    ///
    /// # Errors
    /// When the file is not readable or not Rust.
    pub(crate) fn read(root: &Path, path: &str) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        Self::parse(path, &text)
    }

    /// Parses `text` as if it stood at `path`.
    ///
    /// # Errors
    /// When it is not Rust.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self> {
        let syntax = syn::parse_file(text)
            .with_context(|| format!("{path}: not valid Rust for the parser of this runner"))?;
        Ok(Self { path: path.to_owned(), text: text.to_owned(), syntax })
    }

    /// Whether the whole file is tests: an integration test, or the test module of another file.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.contains("/tests/") || self.path.starts_with("tests/") || self.path.ends_with("/tests.rs")
    }

    /// Lines without the inline `#[cfg(test)]` modules at top level.
    pub(crate) fn production_lines(&self) -> usize {
        self.text.lines().count() - self.test_lines()
    }

    /// Lines of the inline `#[cfg(test)]` modules at top level.
    pub(crate) fn test_lines(&self) -> usize {
        let modules = self.syntax.items.iter().filter_map(|item| match item {
            syn::Item::Mod(module) if module.content.is_some() && is_test_only(&module.attrs) => Some(module),
            _ => None,
        });
        modules.map(|module| lines_of(module.span())).sum()
    }

    /// The items that are not compiled for tests only.
    pub(crate) fn production_tokens(&self) -> TokenStream {
        use quote::ToTokens as _;
        let items = self.syntax.items.iter().filter(|item| !is_test_only(attributes(item)));
        items.map(|item| item.to_token_stream()).collect()
    }

    /// Whether the file starts with `//!` documentation.
    pub(crate) fn has_head(&self) -> bool {
        self.text.lines().map(str::trim).find(|line| !line.is_empty()).is_some_and(|line| {
            line.strip_prefix("//!").is_some_and(|rest| rest.chars().any(char::is_alphabetic))
        })
    }

    /// Every function with its length from the first line of its signature to its closing brace.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut collector = Functions::default();
        collector.visit_file(&self.syntax);
        collector.found
    }

    /// Lines on which the word `unsafe` stands as code, macros included.
    pub(crate) fn unsafe_lines(&self) -> Vec<usize> {
        let mut lines = Vec::new();
        self.each_unsafe(|line, _| lines.push(line));
        lines
    }

    /// Lines of `unsafe` blocks and `unsafe impl`, which owe a reason.
    pub(crate) fn unsafe_claims(&self) -> Vec<usize> {
        let mut lines = Vec::new();
        self.each_unsafe(|line, next| {
            let owes = match next {
                Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
                Some(TokenTree::Ident(word)) => word == "impl",
                _ => false,
            };
            if owes {
                lines.push(line);
            }
        });
        lines
    }

    fn each_unsafe(&self, mut found: impl FnMut(usize, Option<&TokenTree>)) {
        if let Ok(tokens) = self.text.parse::<TokenStream>() {
            each_unsafe_in(tokens, &mut found);
        }
    }

    /// The `mod name;` declarations, those inside inline modules included. `is_root`: the file is a crate root.
    pub(crate) fn module_files(&self, is_root: bool) -> Vec<ModuleFile> {
        let path = Path::new(&self.path);
        let parent = path.parent().unwrap_or(Path::new(""));
        let owns_folder = is_root || path.file_name().is_some_and(|name| name == "mod.rs");
        let folder =
            if owns_folder { parent.to_owned() } else { parent.join(path.file_stem().unwrap_or_default()) };
        let mut found = Vec::new();
        collect_modules(&self.syntax.items, parent, &folder, &mut found);
        found
    }
}

fn collect_modules(items: &[syn::Item], beside: &Path, folder: &Path, found: &mut Vec<ModuleFile>) {
    for item in items {
        let syn::Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        let name = name.trim_start_matches("r#");
        if let Some((_, inner)) = &module.content {
            let inside = folder.join(name);
            collect_modules(inner, &inside, &inside, found);
        } else if let Some(path) = path_attribute(&module.attrs) {
            found.push(ModuleFile { candidates: vec![beside.join(path)] });
        } else {
            let candidates = vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
            found.push(ModuleFile { candidates });
        }
    }
}

fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find(|attribute| attribute.path().is_ident("path")).and_then(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(literal) = &pair.value else { return None };
        let syn::Lit::Str(text) = &literal.lit else { return None };
        Some(text.value())
    })
}

fn each_unsafe_in(tokens: TokenStream, found: &mut impl FnMut(usize, Option<&TokenTree>)) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => found(word.span().start().line, tokens.peek()),
            TokenTree::Group(group) => each_unsafe_in(group.stream(), found),
            _ => {}
        }
    }
}

fn lines_of(span: Span) -> usize {
    span.end().line + 1 - span.start().line
}

/// Whether one of the attributes is a `cfg` that names `test`.
pub(crate) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        attribute.path().is_ident("cfg") && names_test(list.tokens.clone())
    })
}

fn names_test(tokens: TokenStream) -> bool {
    let mut negated = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "test" => return true,
            TokenTree::Ident(word) => negated = word == "not",
            TokenTree::Group(group) if !negated && names_test(group.stream()) => return true,
            _ => {}
        }
    }
    false
}

/// The attributes of any item.
pub(crate) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Functions {
    found: Vec<Function>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.span().start().line;
        let lines = block.span().end().line + 1 - line;
        self.found.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RustFile {
        RustFile::parse("crates/a/src/b.rs", text).unwrap()
    }

    #[test]
    fn inline_test_modules_are_not_production() {
        let file = parse("//! Head.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n");
        assert_eq!((file.production_lines(), file.test_lines()), (2, 4));
        let loom = parse("fn a() {}\n#[cfg(all(test, loom))]\nmod model {\n}\n");
        assert_eq!(loom.production_lines(), 1);
        let not_test = parse("#[cfg(not(test))]\nmod real {\n}\n");
        assert_eq!(not_test.production_lines(), 3);
    }

    #[test]
    fn functions_are_measured_with_their_braces() {
        let file =
            parse("impl X {\n    /// Doc.\n    fn long(\n        &self,\n    ) {\n        a();\n    }\n}\n");
        assert_eq!(file.functions(), [Function { name: "long".into(), line: 3, lines: 5 }]);
    }

    #[test]
    fn unsafe_is_seen_in_code_and_macros_but_not_in_text() {
        let file = parse(
            "// unsafe\nfn a() { let s = \"unsafe\"; unsafe { b() } }\nm! { unsafe impl Send for X {} }\n",
        );
        assert_eq!(file.unsafe_lines(), [2, 3]);
        assert_eq!(file.unsafe_claims(), [2, 3]);
        let declared = parse("unsafe fn a() {}\n");
        assert_eq!((declared.unsafe_lines().len(), declared.unsafe_claims().len()), (1, 0));
    }

    #[test]
    fn modules_are_looked_for_where_the_compiler_looks() {
        let file = parse("mod x;\nmod inline { mod y; }\n#[path = \"z.rs\"]\nmod other;\n");
        let modules = file.module_files(false);
        assert_eq!(modules[0].candidates[0], Path::new("crates/a/src/b/x.rs"));
        assert_eq!(modules[1].candidates[1], Path::new("crates/a/src/b/inline/y/mod.rs"));
        assert_eq!(modules[2].candidates, [Path::new("crates/a/src/z.rs")]);
        assert_eq!(file.module_files(true)[0].candidates[0], Path::new("crates/a/src/x.rs"));
    }

    #[test]
    fn a_head_says_something() {
        assert!(parse("//! What it is.\n").has_head());
        assert!(!parse("//!\nfn a() {}\n").has_head());
        assert!(!parse("// Plain.\nfn a() {}\n").has_head());
    }
}
