package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"backendai"
)

// graphQL answers in GraphQL's envelope, always with 200 (API section 9).
func (h *Handler) graphQL(c *call) error {
	response, err := h.execute(c)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, response)
}

// legacyGraphQL answers with the bare data, or with a problem that lists the errors.
func (h *Handler) legacyGraphQL(c *call) error {
	response, err := h.execute(c)
	if err != nil {
		return err
	}
	if len(response.Errors) > 0 {
		return backendai.Errorf(backendai.CodeGraphQL, "the query failed: %s", response.Errors[0].Message).WithData(response.Errors)
	}
	return c.json(http.StatusOK, response.Data)
}

func (h *Handler) execute(c *call) (*graphQLResponse, error) {
	query := c.required("query")
	operation := c.text("", "operation_name", "operationName")
	variables := c.object("variables")
	if err := c.err(); err != nil {
		return nil, err
	}
	plain, err := plainNumbers(variables)
	if err != nil {
		return nil, err
	}
	data, faults := h.gql.Execute(c.r.Context(), c.caller, query, operation, plain)
	response := &graphQLResponse{Data: data}
	for _, text := range faults {
		response.Errors = append(response.Errors, graphQLError{text})
	}
	return response, nil
}

type graphQLResponse struct {
	Data   json.RawMessage `json:"data"`
	Errors []graphQLError  `json:"errors,omitempty"`
}

type graphQLError struct {
	Message string `json:"message"`
}

// plainNumbers gives variables the types that the executor knows.
func plainNumbers(variables map[string]any) (map[string]any, error) {
	text, err := json.Marshal(variables)
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	var plain map[string]any
	if err := json.Unmarshal(text, &plain); err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	return plain, nil
}
