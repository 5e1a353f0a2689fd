/** `node ask.ts ACCOUNT QUESTION`: asks twice, for a whole answer and for a stream. */
import { createClient } from '@sluice/client'
import { meteredFetch } from '@sluice/client/openai'
import OpenAI, { RateLimitError } from 'openai'

const client = createClient({
  url: process.env.SLUICE_URL ?? 'http://127.0.0.1:8787',
  key: process.env.SLUICE_KEY ?? '',
})

/** The API, at the expense of an account. */
const openaiFor = (account: string) =>
  new OpenAI({
    fetch: meteredFetch({
      client,
      request: ({ body }) => ({ account, feature: 'chat', attributes: { model: String(body.model) } }),
    }),
  })

const [account = 'guest', question = 'Say hello.'] = process.argv.slice(2)
const openai = openaiFor(account)
try {
  const answer = await openai.responses.create({
    model: 'gpt-5.4-mini',
    input: question,
    max_output_tokens: 500,
  })
  console.log(answer.output_text)

  const stream = await openai.chat.completions.create({
    model: 'gpt-5.4-mini',
    messages: [{ role: 'user', content: question }],
    max_completion_tokens: 500,
    stream: true,
  })
  for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? '')
  console.log()
} catch (error) {
  if (!(error instanceof RateLimitError)) throw error
  const wait = error.headers.get('retry-after')
  console.log(`refused: ${error.code}${wait === null ? '' : `, try again in ${wait} s`}`)
} finally {
  await client.close()
}
