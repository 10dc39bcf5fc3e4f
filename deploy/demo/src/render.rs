//! Fills the templates of `deploy/demo/config/`: `{{name}}` becomes the value of `name`.

use anyhow::{Result, bail};

/// The template with every `{{name}}` replaced. A name without a value is an error, and so is a value that the
/// template does not use: either is a typing mistake.
pub fn render(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        let placeholder = format!("{{{{{name}}}}}");
        if !text.contains(&placeholder) {
            bail!("the template has no {placeholder}");
        }
        text = text.replace(&placeholder, value);
    }
    match text.split_once("{{") {
        Some((_, rest)) => bail!(
            "the template wants a value for {{{{{}",
            rest.lines().next().unwrap_or_default()
        ),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_wherever_they_occur() {
        let text = render("id = {{id}}, again {{id}}", &[("id", "l4-1".into())]).unwrap();
        assert_eq!(text, "id = l4-1, again l4-1");
    }

    #[test]
    fn a_missing_value_is_an_error() {
        assert!(
            render("{{id}} {{address}}", &[("id", "x".into())])
                .unwrap_err()
                .to_string()
                .contains("address}}")
        );
    }

    #[test]
    fn an_unused_value_is_an_error() {
        assert!(render("plain", &[("id", "x".into())]).is_err());
    }
}
