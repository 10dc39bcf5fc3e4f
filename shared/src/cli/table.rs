//! Answers as tables of text.

use serde_json::Value;

/// Lines of columns as wide as what is in them, the heading in capitals.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A value of a JSON answer as a cell of [`table`].
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&Value; 3]| cells.map(cell).to_vec();
        let rows = [
            row([&json!("web"), &json!(2), &json!(true)]),
            row([&json!("dns"), &json!(null), &json!(false)]),
        ];
        assert_eq!(
            table(&["name", "weight", "up"], &rows),
            "NAME  WEIGHT  UP\nweb   2       true\ndns   -       false\n"
        );
    }
}
