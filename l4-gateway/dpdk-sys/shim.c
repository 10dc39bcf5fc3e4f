#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <rte_cycles.h>

int weir_errno(void) { return rte_errno; }

uint32_t weir_lcore_id(void) { return rte_lcore_id(); }

uint64_t weir_rdtsc(void) { return rte_rdtsc(); }

int weir_eth_link(uint16_t port, struct weir_link *out) {
    struct rte_eth_link link = {0};
    int status = rte_eth_link_get_nowait(port, &link);
    out->speed_mbps = link.link_speed;
    out->up = link.link_status == RTE_ETH_LINK_UP;
    out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    return status;
}

/* The redirection table as DPDK passes it. */
#define WEIR_RSS_GROUPS (RTE_DIM(((struct weir_rss *)0)->queues) / RTE_ETH_RETA_GROUP_SIZE)

int weir_eth_rss_spread(uint16_t port, uint16_t entries, uint16_t queues) {
    if (entries == 0 || entries > WEIR_RSS_GROUPS * RTE_ETH_RETA_GROUP_SIZE)
        return -ENOTSUP;
    struct rte_eth_rss_reta_entry64 groups[WEIR_RSS_GROUPS];
    memset(groups, 0, sizeof(groups));
    for (uint16_t entry = 0; entry < entries; entry++) {
        groups[entry / RTE_ETH_RETA_GROUP_SIZE].mask |= UINT64_C(1) << entry % RTE_ETH_RETA_GROUP_SIZE;
        groups[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE] = entry % queues;
    }
    return rte_eth_dev_rss_reta_update(port, groups, entries);
}

int weir_eth_rss(uint16_t port, uint16_t entries, struct weir_rss *out) {
    struct rte_eth_rss_conf conf = {.rss_key = out->key, .rss_key_len = sizeof(out->key)};
    int status = rte_eth_dev_rss_hash_conf_get(port, &conf);
    if (status != 0)
        return status;
    if (entries == 0 || entries > RTE_DIM(out->queues))
        return -ENOTSUP;
    struct rte_eth_rss_reta_entry64 groups[WEIR_RSS_GROUPS];
    memset(groups, 0, sizeof(groups));
    for (size_t group = 0; group < WEIR_RSS_GROUPS; group++)
        groups[group].mask = UINT64_MAX;
    status = rte_eth_dev_rss_reta_query(port, groups, entries);
    if (status != 0)
        return status;
    out->types = conf.rss_hf;
    out->key_length = conf.rss_key_len;
    out->is_toeplitz = 1;
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
    out->is_toeplitz =
        conf.algorithm == RTE_ETH_HASH_FUNCTION_DEFAULT || conf.algorithm == RTE_ETH_HASH_FUNCTION_TOEPLITZ;
#endif
    out->entries = entries;
    for (uint16_t entry = 0; entry < entries; entry++)
        out->queues[entry] = groups[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE];
    return 0;
}

/* The status of a call that did or didn't do it, and the driver's words. */
static int flow_status(int done, const struct rte_flow_error *error, char *why, size_t size) {
    int status = done ? 0 : rte_errno != 0 ? -rte_errno : -EINVAL;
    snprintf(why, size, "%s", error->message != NULL ? error->message : "");
    return status;
}

int weir_port_rule_create(uint16_t port, const struct weir_port_rule *rule, struct rte_flow **made, char *why, size_t size) {
    const struct rte_flow_attr attributes = {.ingress = 1};
    struct rte_flow_item_ipv4 ipv4 = {0}, ipv4_mask = {0};
    struct rte_flow_item_ipv6 ipv6 = {0}, ipv6_mask = {0};
    memcpy(&ipv4.hdr.dst_addr, rule->address, 4);
    memset(&ipv4_mask.hdr.dst_addr, 0xff, 4);
    memcpy(&ipv6.hdr.dst_addr, rule->address, 16);
    memset(&ipv6_mask.hdr.dst_addr, 0xff, 16);
    const struct rte_flow_item_tcp tcp = {.hdr.dst_port = htons(rule->value)};
    const struct rte_flow_item_tcp tcp_mask = {.hdr.dst_port = htons(rule->mask)};
    const struct rte_flow_item_udp udp = {.hdr.dst_port = htons(rule->value)};
    const struct rte_flow_item_udp udp_mask = {.hdr.dst_port = htons(rule->mask)};
    struct rte_flow_item pattern[] = {
        {.type = RTE_FLOW_ITEM_TYPE_ETH},
        {.type = RTE_FLOW_ITEM_TYPE_IPV4, .spec = &ipv4, .mask = &ipv4_mask},
        {.type = RTE_FLOW_ITEM_TYPE_TCP, .spec = &tcp, .mask = &tcp_mask},
        {.type = RTE_FLOW_ITEM_TYPE_END},
    };
    if (rule->is_ipv6)
        pattern[1] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_IPV6, .spec = &ipv6, .mask = &ipv6_mask};
    if (rule->protocol == IPPROTO_UDP)
        pattern[2] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &udp, .mask = &udp_mask};
    const struct rte_flow_action_queue queue = {.index = rule->queue};
    const struct rte_flow_action actions[] = {
        {.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &queue},
        {.type = RTE_FLOW_ACTION_TYPE_END},
    };
    struct rte_flow_error error = {0};
    *made = rte_flow_create(port, &attributes, pattern, actions, &error);
    return flow_status(*made != NULL, &error, why, size);
}

int weir_port_rule_destroy(uint16_t port, struct rte_flow *made, char *why, size_t size) {
    struct rte_flow_error error = {0};
    int status = rte_flow_destroy(port, made, &error);
    return flow_status(status == 0, &error, why, size);
}

uint16_t weir_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t capacity) {
    return rte_eth_rx_burst(port, queue, frames, capacity);
}

uint16_t weir_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count) {
    return rte_eth_tx_burst(port, queue, frames, count);
}

struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

int weir_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int count) {
    return rte_pktmbuf_alloc_bulk(pool, frames, count);
}

void weir_mbuf_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }

int weir_mbuf_linearize(struct rte_mbuf *mbuf) { return rte_pktmbuf_linearize(mbuf); }

int weir_mbuf_is_shared(const struct rte_mbuf *mbuf) {
    return rte_mbuf_refcnt_read(mbuf) != 1 || !RTE_MBUF_DIRECT(mbuf);
}

unsigned int weir_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf **frames, unsigned int count) {
    return rte_ring_enqueue_burst(ring, (void **)frames, count, NULL);
}

unsigned int weir_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **frames, unsigned int capacity) {
    return rte_ring_dequeue_burst(ring, (void **)frames, capacity, NULL);
}

unsigned int weir_ring_count(const struct rte_ring *ring) { return rte_ring_count(ring); }

static void (*log_sink)(uint32_t, const char *, size_t);

/* stdio calls this with whole lines (the stream is line buffered), possibly several, possibly from several threads. */
static ssize_t log_write(void *cookie, const char *text, size_t length) {
    (void)cookie;
    int level = rte_log_cur_msg_loglevel();
    size_t start = 0;
    for (size_t at = 0; at < length; at++) {
        if (text[at] == '\n') {
            if (at > start)
                log_sink(level < 0 ? 0 : (uint32_t)level, text + start, at - start);
            start = at + 1;
        }
    }
    if (start < length)
        log_sink(level < 0 ? 0 : (uint32_t)level, text + start, length - start);
    return (ssize_t)length;
}

int weir_log_to(void (*sink)(uint32_t level, const char *line, size_t length)) {
    cookie_io_functions_t functions = {.write = log_write};
    FILE *stream = fopencookie(NULL, "w", functions);
    if (stream == NULL)
        return -errno;
    setvbuf(stream, NULL, _IOLBF, 1024);
    log_sink = sink;
    return rte_openlog_stream(stream);
}
