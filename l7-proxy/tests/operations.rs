//! The operator's page names every metric there is.

#[test]
fn the_page_names_every_metric_and_no_other() {
    let names = |text: &str, open: &str, close: char| -> std::collections::BTreeSet<String> {
        let parts = text.split(open).skip(1);
        parts
            .filter_map(|part| Some(format!("weir_l7_{}", part.split_once(close)?.0)))
            .collect()
    };
    let source = names(include_str!("../src/metrics.rs"), "\"weir_l7_", '"');
    let page = names(
        include_str!("../../deploy/reference/l7-operations.md"),
        "`weir_l7_",
        '`',
    );
    assert_eq!(source, page);
}
