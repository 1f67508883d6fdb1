/** What the service takes and answers, named; every type comes from its OpenAPI document. */
export const INTENDED_USE = "Research use only. Not for diagnosis.";
