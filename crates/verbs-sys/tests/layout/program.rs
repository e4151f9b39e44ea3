//! The C program: one line per fact, made from the crate's tables, so that a complaint of the compiler is about one fact.

use crate::{compiler, known};
use sinew_verbs_sys::layout::{Layout, all_codes, all_constants, all_structures};
use sinew_verbs_sys::{CmTable, EfaTable, Mlx5Table, Signature, VerbsTable};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const HEAD: &str = "#include <stdio.h>\n#include <stddef.h>\n#include <stdbool.h>\n#include <infiniband/verbs.h>\n\
    #include <infiniband/sa.h>\n#include <rdma/rdma_cma.h>\n#include <rdma/rdma_verbs.h>\n#include <infiniband/efadv.h>\n\
    #include <infiniband/mlx5dv.h>\n";

/// A fact that C can print: what it is called, how C says it, what Rust says.
struct Fact {
    what: String,
    expression: String,
    expected: u64,
    /// The name whose absence makes the fact one of a newer rdma-core.
    name: String,
}

/// What differs between the crate and the headers of this folder. Facts that the headers do not know must be known as newer.
pub(crate) fn differences(include: &Path, folder: &str, release: Option<u32>) -> Vec<String> {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("layout-{folder}"));
    std::fs::create_dir_all(&scratch).unwrap();
    let words = words(include, &scratch);
    let facts = facts(&words);
    assert!(facts.len() > 2_000, "only {} facts to compare", facts.len());
    let (present, absent) = split(include, &scratch.join("probe.c"), facts);
    let mut said: Vec<String> = absent
        .iter()
        .filter(|(fact, _)| !known::is_newer(&fact.name, release))
        .map(|(fact, why)| format!("{}: the headers do not have it: {why}", fact.what))
        .collect();
    let printed = compiler::run(include, &write(&scratch.join("facts.c"), &present));
    let values: Vec<u64> = printed.lines().map(|line| line.parse().expect("a number per line")).collect();
    assert_eq!(values.len(), present.len());
    for (fact, value) in present.iter().zip(values) {
        if value != fact.expected {
            said.push(format!("{}: {value} in C, {} here", fact.what, fact.expected));
        }
    }
    said.extend(miscounted(include, &scratch.join("count.c"), &present));
    said
}

/// Every identifier of the headers.
fn words(include: &Path, scratch: &Path) -> std::collections::HashSet<String> {
    let source = scratch.join("head.c");
    std::fs::write(&source, HEAD).unwrap();
    let text = compiler::preprocessed(include, &source);
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned).collect()
}

fn facts(words: &std::collections::HashSet<String>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for structure in all_structures().filter(|structure| !structure.c.is_empty()) {
        of_structure(structure, &mut facts);
    }
    for code in all_codes() {
        let fact = |what: &str, expression: String, expected| Fact {
            what: format!("{}: {what}", code.c),
            expression,
            expected,
            name: code.c.to_owned(),
        };
        facts.push(fact("size", format!("sizeof({})", code.c), code.size as u64));
    }
    let of_codes = all_codes().flat_map(|code| code.constants);
    for constant in of_codes.chain(all_constants()) {
        facts.push(Fact {
            what: constant.c.to_owned(),
            // An identifier that nobody knows is reported once only, and macros of one must still expand.
            expression: format!("(unsigned long long)({})", constant.c),
            expected: constant.value as u64,
            name: constant.c.to_owned(),
        });
    }
    let tables = [VerbsTable::SIGNATURES, CmTable::SIGNATURES, EfaTable::SIGNATURES, Mlx5Table::SIGNATURES];
    let types = Types::new();
    for signature in tables.into_iter().flatten() {
        facts.push(of_function(signature, &types, words));
    }
    facts
}

fn of_structure(structure: &Layout, facts: &mut Vec<Fact>) {
    let c = structure.c;
    let mut push = |what: String, expression: String, expected: u64, name: String| {
        facts.push(Fact { what, expression, expected, name });
    };
    // The size of a structure that newer versions grew is compared where all of its fields are there.
    let last = known::newest_field(structure);
    let size_of = last.map_or_else(
        || format!("sizeof({c})"),
        |field| format!("sizeof({c}) + 0 * sizeof((({c} *)0)->{field})"),
    );
    let name = last.map_or_else(|| c.to_owned(), |field| format!("{c}.{field}"));
    push(format!("{c}: size"), size_of, structure.size as u64, name);
    push(format!("{c}: alignment"), format!("_Alignof({c})"), structure.align as u64, c.to_owned());
    let types = Types::new();
    for field in structure.fields {
        let written = field.written.split_whitespace().collect::<Vec<_>>().join(" ");
        let written = written.replace(", >", ">").replace(",>", ">");
        let name = format!("{c}.{}", field.c);
        let place = format!("(({c} *)0)->{}", field.c);
        if known::is_reserve(field) {
            // A reserve shrinks when something takes of it: it is counted, and what stands around it is compared.
            push(format!("{name}: is there"), format!("sizeof({place}) > 0"), 1, name.clone());
            continue;
        }
        let offset = if known::grows_at_front(structure) {
            // Counted from the end, as it grows at its front.
            (format!("sizeof({c}) - __builtin_offsetof({c}, {})", field.c), structure.size - field.offset)
        } else {
            (format!("__builtin_offsetof({c}, {})", field.c), field.offset)
        };
        push(format!("{name}: offset"), offset.0, offset.1 as u64, name.clone());
        if !field.anonymous {
            push(format!("{name}: size"), format!("sizeof({place})"), field.size as u64, name.clone());
        }
        if let Some(is_signed) = types.is_signed(&written) {
            let expression = format!("((__typeof__({place}))-1 < (__typeof__({place}))1)");
            push(format!("{name}: sign"), expression, u64::from(is_signed), name.clone());
        }
        if let Some(function) = written.strip_prefix("Option<").and_then(|text| text.strip_suffix('>'))
            && let Some((arguments, returned)) = split_function(function)
        {
            let expression = types.is_type_of(&place, &arguments, &returned);
            push(format!("{name}: type"), expression, 1, name.clone());
        }
    }
}

fn of_function(signature: &Signature, types: &Types, words: &std::collections::HashSet<String>) -> Fact {
    let name = signature.name;
    let arguments: Vec<String> = signature.arguments.iter().map(|&argument| argument.to_owned()).collect();
    // Some functions are hidden behind a macro of the same name, which takes arguments: the bare name is the function.
    let expression = if words.contains(name) {
        let expression = types.is_type_of(&format!("&{name}"), &arguments, signature.returned);
        // The exported function takes what the structure was at first; the type is known by name only.
        if name == "ibv_query_port" {
            expression.replace("struct ibv_port_attr", "struct _compat_ibv_port_attr")
        } else {
            expression
        }
    } else {
        format!("sizeof({name})")
    };
    Fact { what: format!("{name}: type"), expression, expected: 1, name: name.to_owned() }
}

/// `unsafe extern "C" fn(a, b) -> c`, taken apart.
fn split_function(text: &str) -> Option<(Vec<String>, String)> {
    let rest = text.trim().strip_prefix("unsafe extern \"C\" fn(")?;
    let (arguments, returned) = rest.rsplit_once(')')?;
    let arguments = arguments.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    Some((arguments.collect(), returned.trim().trim_start_matches("->").trim().to_owned()))
}

/// Rust's types as C has them.
struct Types {
    c: HashMap<&'static str, String>,
}

impl Types {
    fn new() -> Self {
        let mut c: HashMap<&'static str, String> = [
            ("c_int", "int"),
            ("c_uint", "unsigned int"),
            ("c_char", "char"),
            ("c_void", "void"),
            ("u8", "uint8_t"),
            ("u16", "uint16_t"),
            ("u32", "uint32_t"),
            ("u64", "uint64_t"),
            ("i32", "int32_t"),
            ("usize", "size_t"),
            ("isize", "ssize_t"),
            ("bool", "bool"),
            ("ibv_buf", "struct ibv_buf"),
            ("libc::sockaddr", "struct sockaddr"),
        ]
        .into_iter()
        .map(|(rust, c)| (rust, c.to_owned()))
        .collect();
        c.extend(all_structures().map(|structure| (structure.rust, structure.c.to_owned())));
        c.extend(all_codes().map(|code| (code.rust, code.c.to_owned())));
        Self { c }
    }

    fn of(&self, rust: &str) -> String {
        let rust = rust.trim();
        if let Some(rest) = rust.strip_prefix("*mut ") {
            return format!("{} *", self.of(rest));
        }
        if let Some(rest) = rust.strip_prefix("*const ") {
            return format!("const {} *", self.of(rest));
        }
        self.c.get(rust).unwrap_or_else(|| panic!("what is {rust} in C?")).clone()
    }

    /// Of an integer or a code.
    fn is_signed(&self, rust: &str) -> Option<bool> {
        match rust {
            "c_int" | "i32" | "isize" | "IbvNodeType" | "IbvTransportType" => Some(true),
            "c_uint" | "u8" | "u16" | "u32" | "u64" | "usize" => Some(false),
            _ => self.c.get(rust).filter(|c| c.starts_with("enum ")).map(|_| false),
        }
    }

    /// 1 if the pointer to a function has this type. Big-endian numbers of 8 bytes have another name for the same type.
    fn is_type_of(&self, pointer: &str, arguments: &[String], returned: &str) -> String {
        let returned = if returned.is_empty() { "void".to_owned() } else { self.of(returned) };
        let arguments: Vec<String> = arguments.iter().map(|argument| self.of(argument)).collect();
        let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
        // A function without side effects is a `const` function to the compiler.
        let one = format!(
            "(__builtin_types_compatible_p(__typeof__({pointer}), {returned} (*)({arguments})) || \
             __builtin_types_compatible_p(__typeof__({pointer}), const __typeof__({returned} ({arguments})) *))"
        );
        let other = one.replace("uint64_t", "__u64");
        if one == other { one } else { format!("({one} || {other})") }
    }
}

/// Those that the compiler takes, and those that it does not, with its words.
fn split(include: &Path, source: &Path, facts: Vec<Fact>) -> (Vec<Fact>, Vec<(Fact, String)>) {
    let mut text = HEAD.to_owned();
    for (number, fact) in facts.iter().enumerate() {
        text.push_str(&format!(
            "unsigned long long f{number}(void) {{ return (unsigned long long)({}); }}\n",
            fact.expression
        ));
    }
    std::fs::write(source, text).unwrap();
    let first = HEAD.lines().count() + 1;
    let mut complaints: HashMap<usize, String> = HashMap::new();
    for (line, text) in compiler::complaints(include, source) {
        assert!(line >= first, "the headers cannot be read: {text}");
        complaints.entry(line - first).or_insert(text);
    }
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for (number, fact) in facts.into_iter().enumerate() {
        match complaints.remove(&number) {
            None => present.push(fact),
            Some(why) => absent.push((fact, why)),
        }
    }
    (present, absent)
}

fn write(source: &Path, facts: &[Fact]) -> PathBuf {
    let mut text = format!("{HEAD}int main(void) {{\n");
    for fact in facts {
        text.push_str(&format!("printf(\"%llu\\n\", (unsigned long long)({}));\n", fact.expression));
    }
    text.push_str("return 0; }\n");
    std::fs::write(source, text).unwrap();
    source.to_owned()
}

/// Structures of which C has more or fewer fields: an initialiser of as many is taken without a word, one more is too many.
fn miscounted(include: &Path, source: &Path, present: &[Fact]) -> Vec<String> {
    let there = |name: String| present.iter().any(|fact| fact.name == name);
    let counted: Vec<(&Layout, usize)> = all_structures()
        .filter(|structure| !structure.c.is_empty() && !structure.is_union && there(structure.c.to_owned()))
        .filter(|structure| {
            let newest = known::newest_field(structure);
            !known::took_a_reserve(structure)
                || newest.is_none_or(|field| there(format!("{}.{field}", structure.c)))
        })
        .map(|structure| {
            let fields =
                structure.fields.iter().filter(|field| there(format!("{}.{}", structure.c, field.c)));
            (structure, fields.count())
        })
        .collect();
    let mut text = HEAD.to_owned();
    for (number, (structure, count)) in counted.iter().enumerate() {
        let zeros = |count| vec!["{0}"; count].join(", ");
        text.push_str(&format!("void a{number}(void) {{ {} x = {{ {} }}; }}\n", structure.c, zeros(*count)));
        text.push_str(&format!(
            "void b{number}(void) {{ {} x = {{ {} }}; }}\n",
            structure.c,
            zeros(count + 1)
        ));
    }
    std::fs::write(source, &text).unwrap();
    let first = HEAD.lines().count() + 1;
    let complaints = compiler::complaints(include, source);
    let complained = |line: usize| complaints.iter().any(|(at, _)| *at == line);
    let mut said = Vec::new();
    for (number, (structure, count)) in counted.iter().enumerate() {
        if complained(first + 2 * number) {
            said.push(format!("{}: C has fewer fields than {count}", structure.c));
        }
        if !complained(first + 2 * number + 1) {
            said.push(format!("{}: a field is missing: C has more than {count}", structure.c));
        }
    }
    said
}
