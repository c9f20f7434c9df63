"""One HTTP exchange as a state machine: events, replies to the gateway, the transition table, and the machine.

The rules, each of which follows from Envoy's behaviour:

1. A mutation takes effect only in the reply to held headers (STREAMED, FULL_DUPLEX_STREAMED) or to the complete
   body (BUFFERED, BUFFERED_PARTIAL within its limit).
2. The headers are replied to before any body message.
3. Held messages are replied to in the order in which they arrived.
4. Closing: in FULL_DUPLEX_STREAMED every byte is sent back, in chunks of at most 62 KiB, and the stream is not
   closed between the first and the last of them. In all other modes a close answers all pending messages. While a
   request is held the stream stays open, even after a Drain: the deadline ends the wait. If our own failure loses
   bytes, the stream is aborted, so that the gateway knows. A gateway that treats a close as an error
   (`exchange.close: never`) gets replies until it ends the stream, or a message cannot be decoded or encoded.
5. Only a 2xx, or a refusal because of length, is learned from, and only if the complete request was seen.
6. An exception in our own code does not affect the exchange: it continues as in PASSING.
7. A JSON response usually comes in one piece with its headers, and then ends the exchange: the headers are not
   replied to before it, since the close answers both. Between two replies Envoy would wait without a timer.
"""
