import { compilePolicy } from './compile.ts'
import type { PolicyDocument } from './schema.ts'

/**
 * A policy written in TypeScript: the types complete it, and it is validated here and now, so that a mistake shows where
 * the policy is written and not where it is published. Answers the document unchanged. Throws `policy_invalid`.
 */
export function definePolicy(document: PolicyDocument): PolicyDocument {
  compilePolicy(0, document)
  return document
}
