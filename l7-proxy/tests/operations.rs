//! The operator's page names every metric there is.

#[test]
fn the_page_names_every_metric_and_no_other() {
    let page = include_str!("../../deploy/reference/l7-operations.md");
    let table = page.split_once("## Metrics").expect("the section").1;
    let cells = table.lines().filter_map(|line| line.split('|').nth(1));
    let named: std::collections::BTreeSet<&str> = cells
        .flat_map(|cell| cell.split('`'))
        .filter(|word| word.starts_with("weir_l7_"))
        .collect();
    let meanings = l7_proxy::observe::metrics::MEANINGS.iter();
    assert_eq!(named, meanings.map(|(_, name, _)| *name).collect());
}
