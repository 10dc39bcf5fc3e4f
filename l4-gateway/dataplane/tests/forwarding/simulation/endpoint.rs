//! A small TCP: enough to carry a byte stream over a network that loses, duplicates and reorders, and to notice whatever the
//! node in the middle does wrong. Nothing is negotiated, segments carry at most 16 bytes, lost ones are sent again from
//! the first unacknowledged byte on.

use crate::frame::{ACK, FIN, PSH, RST, SYN};

/// One segment, addresses apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    /// Both have sent FIN and both were acknowledged.
    Done,
    /// Ended by RST.
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Endpoint {
    pub state: State,
    iss: u32,
    /// What is to be sent; grows at the echoing end.
    pub outgoing: Vec<u8>,
    /// Nothing is added to `outgoing` any more: a FIN follows it.
    pub closing: bool,
    /// First sequence number not acknowledged, counted from the SYN.
    pub acknowledged: u32,
    /// Next expected sequence number of the peer.
    pub expected: u32,
    pub received: Vec<u8>,
    /// The peer's FIN has arrived.
    pub peer_closed: bool,
    /// The peer closed after we did: we are the one that keeps TIME_WAIT.
    pub closed_first: bool,
}

const CHUNK: usize = 16;
const WINDOW: usize = 3;

impl Endpoint {
    pub fn connect(iss: u32, outgoing: Vec<u8>) -> Self {
        Self {
            state: State::SynSent,
            iss,
            outgoing,
            closing: true,
            acknowledged: 0,
            expected: 0,
            received: Vec::new(),
            peer_closed: false,
            closed_first: false,
        }
    }

    pub fn accept(iss: u32, syn: &Segment) -> Self {
        Self {
            state: State::SynReceived,
            expected: syn.seq.wrapping_add(1),
            closing: false,
            ..Self::connect(iss, Vec::new())
        }
    }

    /// What is to be sent (again) now.
    pub fn poll(&self) -> Vec<Segment> {
        let at = |offset: u32| self.iss.wrapping_add(offset);
        match self.state {
            State::SynSent => vec![Segment {
                flags: SYN,
                seq: self.iss,
                ack: 0,
                data: vec![],
            }],
            State::SynReceived => vec![Segment {
                flags: SYN | ACK,
                seq: self.iss,
                ack: self.expected,
                data: vec![],
            }],
            State::Established => {
                let start = (self.acknowledged.max(1) - 1) as usize;
                let mut segments = Vec::new();
                let unsent = self.outgoing.get(start..).unwrap_or(&[]);
                for (n, chunk) in unsent.chunks(CHUNK).take(WINDOW).enumerate() {
                    let seq = at((start + n * CHUNK) as u32 + 1);
                    segments.push(Segment {
                        flags: ACK | PSH,
                        seq,
                        ack: self.expected,
                        data: chunk.to_vec(),
                    });
                }
                if self.closing && unsent.len() <= CHUNK * WINDOW && self.acknowledged <= self.end()
                {
                    segments.push(Segment {
                        flags: FIN | ACK,
                        seq: at(self.end()),
                        ack: self.expected,
                        data: vec![],
                    });
                }
                segments
            }
            State::Done | State::Reset => vec![],
        }
    }

    /// Takes a segment in; what is answered at once.
    pub fn input(&mut self, segment: &Segment) -> Option<Segment> {
        let Segment {
            flags,
            seq,
            ack,
            data,
        } = segment;
        let sent = ack.wrapping_sub(self.iss);
        match self.state {
            State::SynSent => {
                if flags & ACK != 0 && sent != 1 {
                    return (flags & RST == 0).then(|| Segment {
                        flags: RST,
                        seq: *ack,
                        ack: 0,
                        data: vec![],
                    });
                }
                if flags & RST != 0 {
                    if flags & ACK != 0 {
                        self.state = State::Reset;
                    }
                    return None;
                }
                if flags & (SYN | ACK) != SYN | ACK {
                    return None;
                }
                (self.state, self.expected, self.acknowledged) =
                    (State::Established, seq.wrapping_add(1), 1);
            }
            State::SynReceived | State::Established => {
                if flags & RST != 0 {
                    if *seq == self.expected {
                        self.state = State::Reset;
                    }
                    return None;
                }
                if flags & SYN != 0 {
                    return match self.state {
                        State::SynReceived
                            if flags & ACK == 0 && seq.wrapping_add(1) == self.expected =>
                        {
                            self.poll().pop()
                        }
                        _ => Some(self.acknowledge()),
                    };
                }
                if flags & ACK != 0 && sent > self.acknowledged && sent <= self.end() + 1 {
                    self.acknowledged = sent;
                    if self.state == State::SynReceived {
                        self.state = State::Established;
                    }
                }
                if self.state == State::SynReceived {
                    return None;
                }
                // A bare acknowledgment out of turn is not answered: two ends that did would never stop.
                let answer = !data.is_empty() || flags & FIN != 0;
                if *seq == self.expected {
                    self.received.extend(data);
                    self.expected = seq.wrapping_add(data.len() as u32);
                    if flags & FIN != 0 {
                        self.expected = self.expected.wrapping_add(1);
                        self.peer_closed = true;
                        self.closed_first = self.closing && self.acknowledged > self.end();
                    }
                }
                if self.peer_closed && self.closing && self.acknowledged > self.end() {
                    self.state = State::Done;
                }
                return answer.then(|| self.acknowledge());
            }
            State::Done if flags & RST == 0 && (flags & (SYN | FIN) != 0 || !data.is_empty()) => {}
            State::Done | State::Reset => return None,
        }
        Some(self.acknowledge())
    }

    /// Sequence number of the FIN, counted from the SYN.
    fn end(&self) -> u32 {
        self.outgoing.len() as u32 + 1
    }

    fn acknowledge(&self) -> Segment {
        let seq = self.iss.wrapping_add(self.acknowledged.max(1));
        Segment {
            flags: ACK,
            seq,
            ack: self.expected,
            data: vec![],
        }
    }
}

/// What a host without such a connection answers (RFC 9293 3.10.7.1).
pub fn refuse(segment: &Segment) -> Option<Segment> {
    if segment.flags & RST != 0 {
        return None;
    }
    if segment.flags & ACK != 0 {
        return Some(Segment {
            flags: RST,
            seq: segment.ack,
            ack: 0,
            data: vec![],
        });
    }
    let ack = segment.seq.wrapping_add(segment.data.len() as u32 + 1);
    Some(Segment {
        flags: RST | ACK,
        seq: 0,
        ack,
        data: vec![],
    })
}
