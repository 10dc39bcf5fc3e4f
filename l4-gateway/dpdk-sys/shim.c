#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
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

uint16_t weir_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t capacity) {
    return rte_eth_rx_burst(port, queue, frames, capacity);
}

uint16_t weir_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count) {
    return rte_eth_tx_burst(port, queue, frames, count);
}

struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

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
