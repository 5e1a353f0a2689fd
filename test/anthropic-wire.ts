/** The wire format of Anthropic as an upstream of a test speaks it, held to the types of the official package. */
import type { ServerResponse } from 'node:http'
import type { Message, RawMessageStreamEvent, Usage } from '@anthropic-ai/sdk/resources/messages'
import { events, type Got, say } from './gateway.ts'

/** 4 of input, 2 from the cache, 5 into it, and 3 of output. */
export const TOLD: Usage = {
  ...{ input_tokens: 4, cache_read_input_tokens: 2, cache_creation_input_tokens: 5, output_tokens: 3 },
  ...{ cache_creation: null, inference_geo: null, output_tokens_details: null, server_tool_use: null },
  ...{ service_tier: 'standard', speed: null },
}

export const message = ({ body }: Got, more: Partial<Message> = {}): Message => ({
  ...{ id: 'msg1', type: 'message', role: 'assistant', model: String(body.model), container: null },
  content: [{ type: 'text', text: 'one two three', citations: null }],
  ...{ diagnostics: null, stop_details: null, stop_reason: 'end_turn', stop_sequence: null, usage: TOLD },
  ...more,
})

export function messageStream(got: Got, response: ServerResponse) {
  const stream = events(response)
  const tell = (event: RawMessageStreamEvent): void => stream.tell(event, event.type)
  const start = message(got, { content: [], stop_reason: null, usage: { ...TOLD, output_tokens: 1 } })
  tell({ type: 'message_start', message: start })
  stream.tell({ type: 'ping' }, 'ping')
  return {
    tell,
    open(index: number): void {
      tell({ type: 'content_block_start', index, content_block: { type: 'text', text: '', citations: null } })
    },
    piece(text: string, index = 0): void {
      tell({ type: 'content_block_delta', index, delta: { type: 'text_delta', text } })
    },
    finish(stop_reason: Message['stop_reason'] = 'end_turn', index = 0): void {
      tell({ type: 'content_block_stop', index })
      tell({
        type: 'message_delta',
        delta: { container: null, stop_details: null, stop_reason, stop_sequence: null },
        // Of the input the last word may say nothing.
        usage: {
          ...{ input_tokens: null, cache_creation_input_tokens: null, cache_read_input_tokens: null },
          ...{ output_tokens: 3, output_tokens_details: null, server_tool_use: null },
        },
      })
      tell({ type: 'message_stop' })
      stream.end()
    },
  }
}

export function speakAnthropic(got: Got, response: ServerResponse): void {
  switch (`${got.method} ${got.path.split('?')[0]}`) {
    case 'POST /v1/messages': {
      if (got.body.stream !== true) return say(response, message(got))
      const stream = messageStream(got, response)
      stream.open(0)
      for (const word of ['one ', 'two ', 'three']) stream.piece(word)
      return stream.finish()
    }
    case 'POST /v1/messages/count_tokens':
      return say(response, { input_tokens: 6 })
    case 'GET /v1/models':
      return say(response, {
        data: [{ type: 'model', id: 'm', display_name: 'M', created_at: '2026-01-01T00:00:00Z' }],
        ...{ has_more: false, first_id: 'm', last_id: 'm' },
      })
    default:
      return say(response, { type: 'error', error: { type: 'not_found_error', message: got.path } }, 404)
  }
}
