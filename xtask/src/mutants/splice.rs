//! All mutants of a crate in one program: each is an arm of a `match` on a number that is read when the program starts.
//!
//! Called by [`super::at_once`]. What is changed, and how, is `cargo-mutants`' list; this finds the places in the code and puts the changed
//! forms beside the first ones. It must not move a line, as errors of the compiler are told by lines.

use anyhow::{Context as _, Result};
use quote::ToTokens;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A place as `cargo-mutants` counts: lines and columns from 1.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Extent {
    start: Place,
}

/// One row of its list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Mutant {
    pub(super) name: String,
    pub(super) file: String,
    genre: String,
    replacement: String,
    span: Extent,
}

/// Read by the mutated code.
pub(super) const VARIABLE: &str = "XTASK_MUTANT";

/// Goes to the end of a crate's root.
pub(super) const SWITCH: &str = r#"
#[allow(warnings, clippy::all)]
mod mutated {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    #[inline(always)]
    pub(crate) fn now() -> u32 {
        static NOW: AtomicU32 = AtomicU32::new(u32::MAX);
        match NOW.load(Relaxed) { u32::MAX => read(&NOW), now => now }
    }
    #[cold]
    fn read(now: &AtomicU32) -> u32 {
        let number = std::env::var("XTASK_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        now.store(number, Relaxed);
        number
    }
}
"#;

/// Text that goes somewhere: where, how it stands to others there, what, and for which mutants.
struct Insertion {
    at: usize,
    /// Ends before starts; the ends of short ones first, the starts of long ones first.
    order: (bool, i64),
    text: String,
}

/// Finds the places of mutants in one file.
struct Finder<'a> {
    lines: Vec<usize>,
    text: &'a str,
    /// By genre and start, with their numbers.
    wanted: BTreeMap<(&'static str, Place), Vec<(u32, &'a Mutant)>>,
    placed: BTreeSet<u32>,
    insertions: Vec<Insertion>,
    keep_const: &'a BTreeSet<String>,
    /// Spans of `const` in front of functions that are none any more.
    blanked: Vec<(usize, usize)>,
}

const GENRES: [&str; 6] =
    ["FnValue", "BinaryOperator", "UnaryOperator", "MatchArm", "MatchArmGuard", "StructField"];

/// The file's text with these mutants in it, and which of them found their place. Functions of the names `keep_const` stay `const`, and
/// unchanged.
pub(super) fn splice(
    text: &str,
    mutants: &[(u32, &Mutant)],
    keep_const: &BTreeSet<String>,
) -> Result<(String, BTreeSet<u32>)> {
    let file = syn::parse_file(text).context("it does not parse")?;
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for &(number, mutant) in mutants {
        if let Some(genre) = GENRES.iter().find(|genre| **genre == mutant.genre) {
            wanted.entry((*genre, mutant.span.start)).or_default().push((number, mutant));
        }
    }
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let (placed, insertions, blanked) = Default::default();
    let mut finder = Finder { lines, text, wanted, placed, insertions, keep_const, blanked };
    finder.visit_file(&file);
    let Finder { placed, mut insertions, blanked, .. } = finder;
    insertions.sort_by_key(|insertion| (insertion.at, insertion.order));
    let mut bytes = text.as_bytes().to_vec();
    for (from, to) in blanked {
        bytes[from..to].fill(b' ');
    }
    let text = String::from_utf8(bytes)?;
    let mut out = String::new();
    let mut at = 0;
    for insertion in insertions {
        out.push_str(&text[at..insertion.at]);
        out.push_str(&insertion.text);
        at = insertion.at;
    }
    out.push_str(&text[at..]);
    Ok((out, placed))
}

/// The mutants whose changed forms stand in a line, each with its column.
pub(super) fn marks(line: &str) -> impl Iterator<Item = (usize, u32)> + '_ {
    line.match_indices("/*#").filter_map(|(at, _)| {
        let number = line[at + 3..].split("*/").next()?.parse().ok()?;
        Some((line[..at].chars().count() + 1, number))
    })
}

fn place(at: proc_macro2::LineColumn) -> Place {
    Place { line: at.line, column: at.column + 1 }
}

fn tokens(of: &impl ToTokens) -> String {
    of.to_token_stream().to_string()
}

impl<'a> Finder<'a> {
    fn offset(&self, at: proc_macro2::LineColumn) -> usize {
        let line = self.lines[at.line - 1];
        let rest = &self.text[line..];
        line + rest.char_indices().nth(at.column).map_or(rest.len(), |(offset, _)| offset)
    }

    fn take(&mut self, genre: &'static str, at: proc_macro2::LineColumn) -> Vec<(u32, &'a Mutant)> {
        let found = self.wanted.remove(&(genre, place(at))).unwrap_or_default();
        self.placed.extend(found.iter().map(|(number, _)| *number));
        found
    }

    fn insert(&mut self, at: usize, order: (bool, i64), text: String) {
        self.insertions.push(Insertion { at, order, text });
    }

    /// Puts changed forms beside an expression.
    fn wrap(&mut self, of: &impl ToTokens, before: &str, forms: &[(u32, String)]) {
        if forms.is_empty() {
            return;
        }
        let span = of.span();
        let (start, end) = (self.offset(span.start()), self.offset(span.end()));
        let len = (end - start) as i64;
        let arms: String =
            forms.iter().map(|(number, form)| format!("{number} => /*#{number}*/ {form}, ")).collect();
        self.insert(
            start,
            (true, -len),
            format!("{before}(match crate::mutated::now() {{ {arms}_ => /*#0*/ "),
        );
        self.insert(end, (false, len), " })".to_owned());
    }

    /// A function with a body: what it answers instead, and whether what is in it may change.
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) -> bool {
        if let Some(constant) = &signature.constness {
            if self.keep_const.contains(&signature.ident.to_string()) {
                return false;
            }
            let span = constant.span();
            self.blanked.push((self.offset(span.start()), self.offset(span.end())));
        }
        let Some(first) = block.stmts.first() else { return true };
        if tokens(&signature.output).contains("impl ") {
            // It has one type, that of the first form: what it answers instead would have another.
            return true;
        }
        let start = first.span().start();
        let forms: String = self
            .take("FnValue", start)
            .into_iter()
            .map(|(number, mutant)| {
                format!(
                    "if crate::mutated::now() == {number} {{ return /*#{number}*/ {}; }} ",
                    mutant.replacement
                )
            })
            .collect();
        let at = self.offset(start);
        self.insert(at, (true, i64::MIN), forms);
        true
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if self.function(&item.sig, &item.block) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if self.function(&item.sig, &item.block) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default
            && self.function(&item.sig, block)
        {
            visit::visit_trait_item_fn(self, item);
        }
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let lets = |side: &syn::Expr| matches!(side, syn::Expr::Let(_));
        let (left, right) = (tokens(&*binary.left), tokens(&*binary.right));
        if !lets(&binary.left) && !lets(&binary.right) && !tokens(binary).contains("let ") {
            let forms: Vec<(u32, String)> = self
                .take("BinaryOperator", binary.op.span().start())
                .into_iter()
                .map(|(number, mutant)| (number, format!("{left} {} {right}", mutant.replacement)))
                .collect();
            self.wrap(binary, "", &forms);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let forms: Vec<(u32, String)> = self
            .take("UnaryOperator", unary.span().start())
            .into_iter()
            .map(|(number, mutant)| (number, format!("{} {}", mutant.replacement, tokens(&*unary.expr))))
            .collect();
        self.wrap(unary, "", &forms);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let gone: String = self
            .take("MatchArm", arm.span().start())
            .into_iter()
            .map(|(number, _)| format!("crate::mutated::now() != /*#{number}*/ {number}"))
            .collect();
        let after_pattern = self.offset(arm.pat.span().end());
        if let Some((_, guard)) = &arm.guard {
            let forms: Vec<(u32, String)> = self
                .take("MatchArmGuard", guard.span().start())
                .into_iter()
                .map(|(number, mutant)| (number, mutant.replacement.clone()))
                .collect();
            self.wrap(&**guard, "", &forms);
            if !gone.is_empty() {
                let at = self.offset(guard.span().end());
                self.insert(at, (false, i64::MAX), format!(" && {gone}"));
            }
        } else if !gone.is_empty() {
            self.insert(after_pattern, (false, i64::MAX), format!(" if {gone}"));
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, of: &'ast syn::ExprStruct) {
        let Some(rest) = &of.rest else { return visit::visit_expr_struct(self, of) };
        let rest = tokens(&**rest);
        for field in &of.fields {
            let forms: Vec<(u32, String)> = self
                .take("StructField", field.span().start())
                .into_iter()
                .map(|(number, _)| (number, format!("({rest}).{}", tokens(&field.member))))
                .collect();
            let before = if field.colon_token.is_none() {
                format!("{}: ", tokens(&field.member))
            } else {
                String::new()
            };
            self.wrap(&field.expr, &before, &forms);
        }
        visit::visit_expr_struct(self, of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(genre: &str, (line, column): (usize, usize), replacement: &str) -> Mutant {
        Mutant {
            name: format!("{genre} {line}"),
            file: "a.rs".to_owned(),
            genre: genre.to_owned(),
            replacement: replacement.to_owned(),
            span: Extent { start: Place { line, column } },
        }
    }

    #[test]
    fn an_answer_whose_type_is_not_said_is_left_out_and_what_makes_it_is_not() {
        let text = "fn even(n: u32) -> impl Iterator<Item = u32> {\n    (0..n).filter(|at| at % 2 == 0)\n}\n";
        let mutants =
            [mutant("FnValue", (2, 5), "::std::iter::empty()"), mutant("BinaryOperator", (2, 31), "!=")];
        let numbered: Vec<(u32, &Mutant)> = (1..).zip(&mutants).collect();
        let (spliced, placed) = splice(text, &numbered, &BTreeSet::new()).unwrap();
        assert_eq!(placed, BTreeSet::from([2]));
        assert!(!spliced.contains("empty"), "{spliced}");
    }

    #[test]
    fn changed_forms_stand_beside_the_first_ones_and_no_line_moves() {
        let text = "const fn least(a: u32, b: u32) -> bool {\n    a < b && !b.is_power_of_two()\n}\n";
        let mutants = [
            mutant("FnValue", (2, 5), "true"),
            mutant("BinaryOperator", (2, 7), "<="),
            mutant("UnaryOperator", (2, 14), ""),
        ];
        let numbered: Vec<(u32, &Mutant)> = (1..).zip(&mutants).collect();
        let (spliced, placed) = splice(text, &numbered, &BTreeSet::new()).unwrap();
        assert_eq!(placed.len(), 3);
        assert_eq!(spliced.lines().count(), text.lines().count());
        assert!(spliced.starts_with("      fn least"));
        assert!(spliced.contains("if crate::mutated::now() == 1 { return /*#1*/ true; } (match"));
        assert!(spliced.contains("{ 2 => /*#2*/ a <= b, _ => /*#0*/ a < b }) && (match"));
        syn::parse_file(&spliced).unwrap();
        let line = spliced.lines().nth(1).unwrap();
        assert_eq!(marks(line).map(|(_, number)| number).collect::<Vec<_>>(), [1, 2, 0, 3, 0]);
        let kept = BTreeSet::from(["least".to_owned()]);
        assert_eq!(splice(text, &numbered, &kept).unwrap(), (text.to_owned(), BTreeSet::new()));
    }
}
