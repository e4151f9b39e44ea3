//! What a checker found: errors, warnings, and how much it looked at.
//!
//! Every checker returns one. A checker that looked at nothing has failed, whatever it was meant to find.

use anyhow::{Result, bail};

/// The result of one checker.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    checker: &'static str,
    looked_at: usize,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    /// An empty result of the named checker.
    pub(crate) fn new(checker: &'static str) -> Self {
        Self { checker, ..Self::default() }
    }

    /// Counts `count` more things as looked at.
    pub(crate) fn looked_at(&mut self, count: usize) {
        self.looked_at += count;
    }

    /// Records a broken rule.
    pub(crate) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    /// Records what is allowed but should not last.
    pub(crate) fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Records many broken rules.
    pub(crate) fn errors(&mut self, texts: impl IntoIterator<Item = String>) {
        self.errors.extend(texts);
    }

    /// Takes over the errors and warnings of a part.
    pub(crate) fn absorb(&mut self, part: Self) {
        if part.looked_at == 0 {
            self.errors.push(format!("{}: nothing to look at, so nothing is proven", part.checker));
        }
        self.looked_at += part.looked_at;
        self.errors.extend(part.errors);
        self.warnings.extend(part.warnings);
    }

    /// The errors so far.
    #[cfg(test)]
    pub(crate) fn found(&self) -> &[String] {
        &self.errors
    }

    /// The warnings so far.
    #[cfg(test)]
    pub(crate) fn warned(&self) -> &[String] {
        &self.warnings
    }

    /// Prints everything.
    ///
    /// # Errors
    /// When a rule is broken, or when nothing was looked at.
    pub(crate) fn conclude(self) -> Result<()> {
        for warning in &self.warnings {
            println!("warning: {warning}");
        }
        for error in &self.errors {
            println!("error: {error}");
        }
        let checker = self.checker;
        if !self.errors.is_empty() {
            bail!("{checker}: {} errors in {} things looked at", self.errors.len(), self.looked_at);
        }
        if self.looked_at == 0 {
            bail!("{checker}: nothing to look at, so nothing is proven");
        }
        println!("{checker}: {} looked at, {} warnings, no error", self.looked_at, self.warnings.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_work_list_fails() {
        assert!(Findings::new("x").conclude().is_err());
        let mut whole = Findings::new("whole");
        whole.looked_at(1);
        whole.absorb(Findings::new("part"));
        assert_eq!(whole.found().len(), 1);
    }

    #[test]
    fn an_error_fails_and_a_warning_does_not() {
        let mut findings = Findings::new("x");
        findings.looked_at(1);
        findings.warning("long");
        assert_eq!(findings.warned().len(), 1);
        findings.error("wrong");
        assert!(findings.conclude().is_err());
    }
}
